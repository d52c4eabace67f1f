"""Kueue as a process beside a control plane: its CRDs and webhooks from its own module, and the queues of a test.

Kueue's manager wants to be a pod: its webhooks are called through a Service, and its metrics certificate lies in
/etc. Here the webhooks are called by URL, and the process sees a folder of ours as its /etc.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.client import Cluster, KubectlError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.field import is_established
from tests.cluster.processes import free_port
from tests.cluster.programs import TOOLS, program

Raw = dict[str, Any]
API: Final = "kueue.x-k8s.io/v1beta1"
FLAVOR: Final = "default-flavor"
PLAYS_POD: Final = 'mount --bind "$0" /etc && exec "$@"'  # in a mount namespace of its own
OURS: Final = ("-batch-v1-job", "-kueue-x-k8s-io-")  # webhooks of the kinds that are used here


class Kueue:
    """Kueue's manager for one control plane; `start` returns when it answers admission requests."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.port = free_port()

    def start(self) -> None:
        plane = self.plane
        crds = sorted((components() / "crd" / "bases").glob("*.yaml"))
        plane.kubectl("apply", "--server-side", *(word for file in crds for word in ("-f", file)))
        names = [yaml.safe_load(file.read_text())["metadata"]["name"] for file in crds]
        for name in names:
            plane.wait(is_established, f"crd/{name}")
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kueue-system"}})
        self.resume()
        self._await(lambda: plane.apply(*self._webhooks()))
        self._await(lambda: plane.apply(flavor(FLAVOR)))

    def halt(self) -> None:
        """As when its node is lost: its webhooks stay, and nobody answers them."""
        self.plane.processes.stop("kueue")

    def resume(self) -> None:
        self.plane.processes.start("kueue", self._argv())

    def stop(self) -> None:
        """Also takes its webhooks away: without it nobody could make a Job."""
        kinds = "mutatingwebhookconfiguration,validatingwebhookconfiguration"
        self.plane.kubectl("delete", kinds, "-l", "test=kueue", "--ignore-not-found")
        self.halt()

    def _argv(self) -> list[str | Path]:
        folder = self.plane.folder / "kueue"
        pair = self.plane.authority.issue("kueue-webhook", "kueue", hosts=["127.0.0.1"])
        for place in (folder / "serving", folder / "etc" / "kueue" / "metrics" / "certs"):
            place.mkdir(parents=True, exist_ok=True)
            (place / "tls.crt").write_bytes(pair.certificate.read_bytes())
            (place / "tls.key").write_bytes(pair.key.read_bytes())
        config = folder / "config.yaml"
        config.write_text(json.dumps(configuration(self.port, folder / "serving")))
        account = self.plane.client("kueue", "kueue", ["system:masters"])
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        namespace: list[str | Path] = ["unshare", "--mount", *as_root, "--", "sh", "-c", PLAYS_POD, folder / "etc"]
        return [*namespace, program("kueue"), f"--config={config}", f"--kubeconfig={account}", "--zap-log-level=2"]

    def _webhooks(self) -> list[Raw]:
        """Kueue's webhook manifests with an address on this machine in place of its Service."""
        authority = base64.b64encode(self.plane.authority.ca.certificate.read_bytes()).decode()
        text = (components() / "webhook" / "manifests.yaml").read_text()
        found = []
        for item in yaml.safe_load_all(text):
            hooks = [hook for hook in item["webhooks"] if is_ours(hook)]
            for hook in hooks:
                path = hook["clientConfig"]["service"]["path"]
                hook["clientConfig"] = {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": authority}
            name = f"kueue-{item['metadata']['name']}"
            found.append({**item, "metadata": {"name": name, "labels": {"test": "kueue"}}, "webhooks": hooks})
        return found

    def _await(self, work: Any, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while True:
            self.plane.processes.require("kueue")
            try:
                work()
                return
            except KubectlError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"{error}\n{self.plane.processes.tail('kueue')}") from error
            time.sleep(0.3)


def components() -> Path:
    """Kueue's manifests, which lie in its Go module."""
    words = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"]
    done = subprocess.run(words, cwd=TOOLS / "kueue", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) / "config" / "components"


def is_ours(hook: Raw) -> bool:
    return any(part in hook["clientConfig"]["service"]["path"] for part in OURS)


def configuration(port: int, certificates: Path) -> Raw:
    """What an administrator would set, and what a process outside a pod needs."""
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "namespace": "kueue-system",
        "manageJobsWithoutQueueName": False,
        "integrations": {"frameworks": ["batch/job"]},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{free_port()}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"port": port, "host": "127.0.0.1", "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "clientConnection": {"qps": 200, "burst": 400},
        "featureGates": {"VisibilityOnDemand": False, "MultiKueue": False},
    }


def flavor(name: str) -> Raw:
    return {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": name}}


def cluster_queue(name: str, quota: dict[str, str]) -> Raw:
    """A ClusterQueue with one flavor and its quota by resource, in which a higher priority preempts."""
    resources = [{"name": resource, "nominalQuota": amount} for resource, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": FLAVOR, "resources": resources}]}
    return {
        "apiVersion": API,
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {},
            "queueingStrategy": "BestEffortFIFO",
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [group],
        },
    }


def local_queue(name: str, namespace: str, target: str) -> Raw:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": API, "kind": "LocalQueue", "metadata": meta, "spec": {"clusterQueue": target}}


def priority(name: str, value: int) -> Raw:
    return {"apiVersion": API, "kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}


def condition(load: Raw, kind: str) -> Raw:
    """One condition of a Workload; empty when it has none of that type."""
    found = (load.get("status") or {}).get("conditions") or ()
    return next((item for item in found if item["type"] == kind), {})


def use_of(cluster: Cluster, queue: str) -> dict[str, str]:
    """What a ClusterQueue has reserved, by resource."""
    status = cluster.get("clusterqueue", queue).get("status") or {}
    flavors = status.get("flavorsReservation") or ()
    return {item["name"]: item["total"] for each in flavors for item in each["resources"]}
