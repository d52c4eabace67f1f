"""The quickstart made small, on a real node with gVisor: a laptop's digests, and no way out of a sandbox."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster.client import KubectlError
from tests.cluster.node import Node
from tests.cluster.quickstart import BUCKET, NAMESPACE, SAMPLE, TERMINAL, install, s3_server
from tests.faults.test_kill_run import small

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

NAME = "small"
# Sent through the sandbox's own door: a program that looks for everything a program must not find.
PROBE = """
import os, socket
found = []
for host, port in TARGETS:
    try:
        socket.create_connection((host, port), timeout=3).close()
        found.append(f"reached {host}:{port}")
    except OSError:
        pass
names = [name for name in os.environ if "TOKEN" in name or "AWS" in name or "KUBERNETES" in name]
found += [f"has {name}" for name in names]
for path in ("/var/run/secrets", "/run/secrets", "/var/lib/soda/cache"):
    if os.path.exists(path):
        found.append(f"sees {path}")
if found:
    raise SystemExit("; ".join(found))
"""
ASK = """
import asyncio, json, os, sys
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.types import Program
code = sys.stdin.read()
job = Program(id="probe", language="python", code=code, timeout_seconds=30, memory_mib=256, rules="feedback")
found = asyncio.run(run_programs("http://127.0.0.1:8000", [job], token=os.environ["SODA_SANDBOX_TOKEN"]))["probe"]
print(json.dumps({"verdict": found.verdict, "detail": found.detail}))
"""


@dataclass
class Ended:
    """A finished run, and what was seen inside its sandbox while it ran."""

    status: dict[str, Any]
    kernel: str
    probe: dict[str, str]
    egress: dict[str, Any]


def document() -> dict[str, Any]:
    run: dict[str, Any] = small(yaml.safe_load(SAMPLE.read_text()))
    run["metadata"]["name"] = NAME
    return run


@pytest.fixture(scope="module")
def on_a_laptop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests by stage of the same file under `soda run`."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "run.yaml").write_text(yaml.safe_dump(document()))
    words = [sys.executable, "-m", "soda_jobs", "run", "run.yaml", "--store", str(folder / "store")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    status = json.loads((folder / f"store/runs/{NAME}/status.json").read_bytes())
    return {row["name"]: row["digest"] for row in status["stages"]}


@pytest.fixture(scope="module")
def ended(node: Node) -> Iterator[Ended]:
    with s3_server(node) as server:
        install(node, server.endpoint, document())
        run = document()
        run["spec"]["storage"] = {
            "url": f"s3://{BUCKET}/small-{int(time.time())}",
            "endpoint": server.endpoint,
            "secretRef": {"name": "s3"},
        }
        node.kubectl("delete", "distillationrun", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait")
        node.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(run))
        yield _watch(node, server.endpoint)
        node.kubectl("delete", "distillationrun", NAME, "-n", NAMESPACE, "--wait")


def _watch(node: Node, endpoint: str, seconds: float = 2400) -> Ended:
    kernel, probe, egress = "", {}, {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = node.get("distillationrun", NAME, namespace=NAMESPACE).get("status") or {}
        if status.get("state") in TERMINAL:
            return Ended(status, kernel, probe, egress)
        ready = [item["name"] for item in status.get("services", ()) if item.get("ready")]
        if "sandbox-python" in ready and not probe:
            try:
                kernel, probe = _look_inside(node, endpoint)
                policies = node.get("networkpolicies", namespace=NAMESPACE)["items"]
                egress = next(item["spec"] for item in policies if item["metadata"]["name"] == f"{NAME}-sandbox")
            except KubectlError:
                continue  # the sandbox went meanwhile; the next one is looked at
        time.sleep(1)
    raise TimeoutError(f"the run is not over after {seconds:g} s: {status.get('state')} {status.get('message')}")


def _look_inside(node: Node, endpoint: str) -> tuple[str, dict[str, str]]:
    selector = f"soda.dev/run={NAME},soda.dev/service=sandbox-python"
    pod = node.kubectl("get", "pod", "-n", NAMESPACE, "-l", selector, "-o", "name").split()[0]
    kernel = node.kubectl("exec", "-n", NAMESPACE, pod, "--", "dmesg")
    server = endpoint.removeprefix("http://").split(":")
    targets = [
        [server[0], int(server[1])],
        ["10.96.0.1", 443],
        ["169.254.169.254", 80],
        [node.address, 10250],
        ["127.0.0.1", 8000],
    ]
    code = base64.b64encode(f"TARGETS = {targets!r}\n{PROBE}".encode()).decode()
    ask = f"import base64, io, sys; sys.stdin = io.StringIO(base64.b64decode('{code}').decode()){ASK}"
    return kernel, json.loads(node.kubectl("exec", "-n", NAMESPACE, pod, "--", "python", "-c", ask))


def test_the_cluster_makes_the_digests_of_a_laptop(ended: Ended, on_a_laptop: dict[str, str]) -> None:
    assert ended.status["state"] == "Succeeded", ended.status["message"]
    rows = {row["name"]: row["digest"] for row in ended.status["stages"] if row.get("digest")}
    different = {
        name: (rows.get(name), digest) for name, digest in on_a_laptop.items() if rows.get(name) != digest
    }
    assert different == {}


def test_programs_ran_under_gvisor(ended: Ended) -> None:
    assert "gVisor" in ended.kernel


def test_a_program_reaches_nothing(ended: Ended) -> None:
    assert ended.probe == {"verdict": "pass", "detail": ended.probe.get("detail")}, ended.probe
    assert ended.egress["policyTypes"] == ["Ingress", "Egress"]
    assert not ended.egress.get("egress")
