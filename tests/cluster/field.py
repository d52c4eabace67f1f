"""One namespace of a real API server with a real operator in it, and a played kubelet.

`async with Field.open(control_plane, folder) as field:` gives a run's whole life in seconds.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from soda_jobs.errors import SodaError
from soda_operator.cluster import PATHS
from soda_operator.cluster import Cluster as Api
from tests.cluster.client import Cluster
from tests.cluster.player import Player
from tests.cluster.processes import Processes, free_port

Raw = dict[str, Any]
ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "distillationruns.soda.dev.yaml"
QUICKSTART = ROOT / "crds" / "samples" / "quickstart.yaml"
STORAGE = {"url": "s3://bucket/prefix", "endpoint": "http://store.invalid:9000", "secretRef": {"name": "s3"}}
KINDS = ("DistillationRun", "Job", "Pod", "Service", "ServiceAccount", "Secret", "NetworkPolicy", "Event")
RUN_PATH = "/apis/soda.dev/v1alpha1/namespaces/{}/distillationruns"


def tiny_run(name: str = "tiny", **spec: Any) -> Raw:
    """The quickstart with one round and nothing that can be left out: 15 stages, four servers."""
    document: Raw = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    document["metadata"] = {"name": name}
    document["spec"] |= {
        "rounds": 1,
        "ablation": {"skip": ["fault", "judge", "execution", "classification"]},
        "execution": {"languages": ["python"]},
        **spec,
    }
    return document


def prepare(cluster: Cluster) -> None:
    """What an administrator installs once: the CRD and a RuntimeClass."""
    cluster.kubectl("apply", "--server-side", "-f", CRD)
    cluster.wait(is_established, "crd/distillationruns.soda.dev")
    meta = {"name": "gvisor"}
    cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": meta, "handler": "runsc"})


def is_established(crd: Raw) -> bool:
    """Whether a CRD is served; `kubectl wait` fails as long as it has no conditions at all."""
    return condition(crd.get("status") or {}, "Established") == "True"


@dataclass
class OperatorProcess:
    """`python -m soda_operator` for one namespace, or for all of them; `name` is its identity for the lease."""

    kubeconfig: Path
    folder: Path
    namespace: str
    name: str = "operator-0"
    everywhere: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.processes = Processes(self.folder)
        self.port = free_port()

    def start(self) -> None:
        self.starts += 1
        env = {
            "KUBECONFIG": str(self.kubeconfig),
            "SODA_LOG": "json",
            "SODA_HOST": "127.0.0.1",
            "SODA_PORT": str(self.port),
            "POD_NAME": self.name,
            "POD_NAMESPACE": self.namespace,
            "SODA_NAMESPACE": "" if self.everywhere else self.namespace,
            "SODA_STORAGE": json.dumps(STORAGE),
            **self.settings,
        }
        self.processes.start(self.name, [sys.executable, "-m", "soda_operator"], env)

    @property
    def is_alive(self) -> bool:
        return self.processes.pid(self.name) is not None

    def kill(self) -> None:
        """As a node that loses its power."""
        pid = self.processes.pid(self.name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def stop(self, sign: signal.Signals = signal.SIGKILL, grace: float = 20) -> None:
        self.processes.stop(self.name, sign=sign, grace=grace)

    def log(self, lines: int = 40) -> str:
        return self.processes.tail(self.name, lines)

    async def keep(self) -> None:
        """Start it, and again whenever it is gone."""
        while True:
            if not self.is_alive:
                self.stop()
                self.start()
            await asyncio.sleep(0.05)


@dataclass
class Field:
    """What a test does and sees in one namespace."""

    api: Api
    namespace: str
    operator: OperatorProcess
    player: Player

    @classmethod
    @asynccontextmanager
    async def open(
        cls, cluster: Cluster, folder: Path, *, kubeconfig: Path | None = None, start: bool = True, **settings: str
    ) -> AsyncIterator[Field]:
        namespace = await asyncio.to_thread(cluster.make_namespace)
        api = await Api.connect(str(cluster.kubeconfig))
        player = Player(api, namespace)
        operator = OperatorProcess(kubeconfig or cluster.kubeconfig, folder, namespace, settings=settings)
        playing = asyncio.create_task(player.play())
        if start:
            operator.start()
        try:
            yield cls(api, namespace, operator, player)
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            await asyncio.to_thread(operator.stop)
            await api.close()
            await asyncio.to_thread(cluster.drop_namespaces, [namespace])

    # What a user does.

    async def apply(self, document: Raw) -> None:
        """As `kubectl apply --server-side`."""
        path = f"{RUN_PATH.format(self.namespace)}/{document['metadata']['name']}"
        query = {"fieldManager": "user", "force": "true"}
        await self.api._call("PATCH", path, body=document, query=query, content="application/apply-patch+yaml")

    async def change(self, name: str = "tiny", **spec: Any) -> None:
        path = f"{RUN_PATH.format(self.namespace)}/{name}"
        await self.api._call("PATCH", path, body={"spec": spec}, content="application/merge-patch+json")

    # What a test looks at.

    async def run(self, name: str = "tiny") -> Raw:
        return await self.api.get("DistillationRun", self.namespace, name)

    async def status(self, name: str = "tiny") -> Raw:
        found: Raw = (await self.run(name)).get("status") or {}
        return found

    async def until(self, done: Callable[[Raw], bool], seconds: float = 120, name: str = "tiny") -> Raw:
        """The status once `done(status)`."""
        end, last = time.monotonic() + seconds, {}
        while time.monotonic() < end:
            with suppress(SodaError):
                last = await self.status(name)
                if done(last):
                    return last
            await asyncio.sleep(0.2)
        short = {key: value for key, value in last.items() if key not in ("conditions", "stages")}
        rows = [row for row in last.get("stages", ()) if row["state"] not in ("done", "waiting")]
        raise TimeoutError(f"not within {seconds:g} s: {short} {rows}\n{self.operator.log()}")

    async def ended(self, *states: str, seconds: float = 240, name: str = "tiny") -> Raw:
        return await self.until(lambda status: status.get("state") in states, seconds, name)

    async def all(self, kind: str) -> list[Raw]:
        return [item async for item in self.api.list(kind, self.namespace)]

    async def active_jobs(self) -> list[str]:
        jobs = await self.all("Job")
        return [job["metadata"]["name"] for job in jobs if not (job.get("status") or {}).get("conditions")]

    async def versions(self, kinds: Iterable[str] = KINDS) -> dict[str, str]:
        """The resourceVersion of every object; two equal answers mean that nobody wrote anything between."""
        found = {}
        for kind in kinds:
            for item in await self.all(kind):
                found[f"{kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        return found

    async def rest(self, seconds: float, within: float = 60) -> dict[str, str]:
        """The versions of all objects once nothing has changed for so long."""
        end = time.monotonic() + within + seconds
        before, since = await self.versions(), time.monotonic()
        while time.monotonic() - since < seconds:
            assert time.monotonic() < end, "objects keep changing after the end"
            await asyncio.sleep(0.5)
            now = await self.versions()
            if now != before:
                before, since = now, time.monotonic()
        return before


def digests(status: Mapping[str, Any]) -> dict[str, str]:
    return {row["name"]: row.get("digest", "") for row in status["stages"]}


def condition(status: Mapping[str, Any], kind: str) -> str:
    return next((str(item["status"]) for item in status.get("conditions") or () if item["type"] == kind), "")


def without(document: Raw, *path: str) -> Raw:
    """A copy without one field."""
    found = copy.deepcopy(document)
    *parents, last = path
    place = found
    for name in parents:
        place = place[name]
    place.pop(last, None)
    return found


__all__ = [
    "PATHS",
    "Field",
    "OperatorProcess",
    "condition",
    "digests",
    "is_established",
    "prepare",
    "tiny_run",
    "without",
]
