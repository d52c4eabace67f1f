"""The operator under load, on a real API server and Job controller whose nodes are played.

    python tests/bench/bench_operator.py [--present 1000] [--active 100] [--finished 10000]
                                         [--seconds 30] [--write]

Three measurements, one operator process, everything on this machine:
  idle      memory and start-up with nothing to do
  active    `present` runs, `active` of them going through a small method at once, each stage some `seconds` long:
            latency, API calls, memory. With 0 seconds it is as many stages as the machine can play.
  restart   `finished` runs that are over: from the start of the process until a new run is accepted
`--write` puts the table into docs/benchmarks/operator.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from soda_jobs.errors import SodaError  # noqa: E402 - the tests' package is found beside this file
from soda_operator.cluster import Cluster, Conflict  # noqa: E402
from tests.cluster.control_plane import ControlPlane  # noqa: E402
from tests.cluster.player import End, Player, good_end  # noqa: E402
from tests.cluster.processes import free_port  # noqa: E402

TARGET = ROOT / "docs/benchmarks/operator.md"
STORAGE = {"url": "s3://bucket/prefix", "endpoint": "http://127.0.0.1:9", "secretRef": {"name": "s3"}}
NAMESPACE = "bench"
RUN = "/apis/soda.dev/v1alpha1/namespaces/bench/distillationruns"


@dataclass
class Operator:
    """One operator process and what its /metrics say."""

    kubeconfig: Path
    log: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "SODA_NAMESPACE": NAMESPACE,
            "SODA_PORT": str(self.port),
            "SODA_HOST": "127.0.0.1",
            "SODA_LOG": "json",
            "POD_NAMESPACE": NAMESPACE,
            "SODA_STORAGE": json.dumps(STORAGE),
            "MALLOC_TRIM_THRESHOLD_": "131072",  # as in images/operator
            "MALLOC_ARENA_MAX": "2",
        }
        self.began = time.monotonic()
        with self.log.open("ab") as log:
            words = [sys.executable, "-m", "soda_operator"]
            self.process = subprocess.Popen(words, env=env, stdout=log, stderr=log, cwd=self.log.parent)

    def metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())

    def memory(self) -> float:
        """Resident memory in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def peak(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def wait_for(self, what: str, seconds: float = 300) -> float:
        """Seconds from the start of the process until its log has the event."""
        while time.monotonic() - self.began < seconds:
            if what in self.log.read_text(errors="replace"):
                return time.monotonic() - self.began
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{what} is not in the operator's log:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.unlink()


def quantile(metrics: str, name: str, share: float, before: str = "") -> float:
    """A quantile of a histogram by its buckets, interpolated, of what came since `before`."""

    def buckets(text: str) -> list[tuple[float, float]]:
        found = re.findall(rf'{name}_bucket{{le="([^"]+)"}} (\S+)', text)
        return [(float(edge.replace("+Inf", "inf")), float(count)) for edge, count in found]

    old = dict(buckets(before)) if before else {}
    rows = [(edge, count - old.get(edge, 0.0)) for edge, count in buckets(metrics)]
    wanted = share * rows[-1][1]
    low, below = 0.0, 0.0
    for edge, count in rows:
        if count >= wanted:
            return low + (min(edge, 60.0) - low) * (wanted - below) / max(1e-9, count - below)
        low, below = edge, count
    return low


def requests(metrics: str) -> float:
    return sum(float(count) for count in re.findall(r"soda_api_requests_total{[^}]*} (\S+)", metrics))


def small_run(name: str) -> dict[str, Any]:
    run: dict[str, Any] = yaml.safe_load((ROOT / "crds/samples/quickstart.yaml").read_text())
    run["metadata"] = {"name": name, "namespace": NAMESPACE}
    run["spec"]["rounds"] = 1
    run["spec"]["storage"] = STORAGE
    return run


def finished_status(name: str) -> dict[str, Any]:
    """A status as large as a real one: 57 stages with key and digest."""
    rows = [
        {
            "name": f"r{number // 19}-stage-{number % 19}",
            "state": "done",
            "attempt": 1,
            "key": hashlib.sha256(f"{name}{number}".encode()).hexdigest(),
            "digest": hashlib.sha256(f"{number}".encode()).hexdigest(),
        }
        for number in range(57)
    ]
    return {"observedGeneration": 1, "state": "Succeeded", "reason": "Succeeded", "stages": rows}


async def in_parallel(work: Iterator[Awaitable[Any]], at_once: int = 24) -> None:
    async def worker() -> None:
        for item in work:
            await item

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def make_finished(cluster: Cluster, first: int, count: int) -> None:
    async def one(name: str) -> None:
        with suppress(Conflict):
            made = await cluster.create(small_run(name))
            await cluster.put_status({**made, "status": finished_status(name)})

    await in_parallel(one(f"finished-{number}") for number in range(first, first + count))


async def states(cluster: Cluster, prefix: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    async for item in cluster.list("DistillationRun", NAMESPACE):
        if item["metadata"]["name"].startswith(prefix):
            state = (item.get("status") or {}).get("state", "Pending")
            counts[state] = counts.get(state, 0) + 1
    return counts


async def measure(plane: ControlPlane, options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    cluster = await Cluster.connect(str(plane.kubeconfig))
    operator = Operator(plane.kubeconfig, folder / "operator.log")
    rows.append(("start until it works, nothing there", f"{await operator.wait_for('resync'):.1f} s"))
    await asyncio.sleep(5)
    rows.append(("memory, nothing there", f"{operator.memory():.0f} MiB"))
    say("making", options.present - options.active, "finished runs")
    await make_finished(cluster, 0, options.present - options.active)
    rows += await active(cluster, operator, options)
    operator.stop()
    say("making", options.finished, "finished runs")
    await make_finished(cluster, options.present, options.finished - (options.present - options.active))
    operator = Operator(plane.kubeconfig, folder / "operator.log")
    listed = await operator.wait_for("resync")
    rows.append((f"restart until {options.finished:,} finished runs are listed", f"{listed:.1f} s"))
    begun = time.monotonic()
    await cluster.create(small_run("late"))
    while not (await cluster.get("DistillationRun", NAMESPACE, "late")).get("status", {}).get("startTime"):
        await asyncio.sleep(0.05)
    rows.append(("then, a new run until it is accepted", f"{time.monotonic() - begun:.1f} s"))
    rows.append((f"memory, {options.finished:,} finished runs", f"{operator.memory():.0f} MiB"))
    rows.append(("memory at the most", f"{operator.peak():.0f} MiB"))
    operator.stop()
    await cluster.close()
    return rows


async def active(cluster: Cluster, operator: Operator, options: argparse.Namespace) -> list[tuple[str, str]]:
    before, cpu = operator.metrics(), operator.cpu()
    begun = time.monotonic()
    say("starting", options.active, "runs")
    await in_parallel(cluster.create(small_run(f"active-{number}")) for number in range(options.active))
    player = Player(cluster, NAMESPACE, pause=0.5, at_once=16, ends=lasting(options.seconds))
    playing = asyncio.create_task(player.play())
    while True:
        await asyncio.sleep(5)
        with suppress(SodaError):
            counts = await states(cluster, "active-")
            say(f"{time.monotonic() - begun:.0f} s", counts, f"{operator.memory():.0f} MiB")
            if counts.get("Succeeded", 0) == options.active:
                break
            if counts.get("Failed"):
                raise AssertionError(f"runs failed: {counts}")
    playing.cancel()
    seconds, after = time.monotonic() - begun, operator.metrics()
    name = "soda_event_to_action_seconds"
    stages = sum(float(count) for count in re.findall(r"soda_stages_total{[^}]*} (\S+)", after))
    calls = requests(after) - requests(before)
    return [
        (f"{options.active} runs at once, of {options.present:,} present", f"{seconds:.0f} s"),
        ("length of a stage", f"{options.seconds / 2:.0f} to {options.seconds * 3 / 2:.0f} s"),
        ("stages finished", f"{stages:.0f}"),
        ("event to action, p50", f"{quantile(after, name, 0.5, before):.2f} s"),
        ("event to action, p95", f"{quantile(after, name, 0.95, before):.2f} s"),
        ("API calls for each run", f"{calls / options.active:.0f}"),
        ("CPU for each run", f"{(operator.cpu() - cpu) / options.active:.2f} s"),
        ("memory with them", f"{operator.memory():.0f} MiB"),
    ]


def lasting(seconds: float) -> Callable[[dict[str, Any]], End | None]:
    """Pods that end well after half to one and a half of `seconds`, by a hash of their name."""

    def end(pod: dict[str, Any]) -> End | None:
        share = 0.5 + int(hashlib.sha256(pod["metadata"]["name"].encode()).hexdigest()[:4], 16) / 65536
        states = pod["status"]["containerStatuses"][0]["state"]
        begun = datetime.fromisoformat(states["running"]["startedAt"]).timestamp()
        return good_end(pod) if time.time() - begun >= share * seconds else None

    return end


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(folder / "plane")
    try:
        plane.start()
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/distillationruns.soda.dev.yaml"))
        plane.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": "gvisor"},
                "handler": "runsc",
            },
        )
        yield plane
    finally:
        plane.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--present", type=int, default=1000)
    parser.add_argument("--active", type=int, default=100)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a stage, in the mean")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder)) as plane:
        rows = asyncio.run(measure(plane, options, Path(folder)))
    table = "\n".join(["| what | seen |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    print(table)
    if options.write:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        machine = f"{os.cpu_count()} cores ({platform.machine()}), which the API server, its controllers and the"
        TARGET.write_text(
            "# The operator under load\n\nWritten by `make bench-operator`. One operator process, a real API "
            f"server and Job controller, played nodes.\n{machine} player shared.\n\n{table}\n"
        )


if __name__ == "__main__":
    main()
