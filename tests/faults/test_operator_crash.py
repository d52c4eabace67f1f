"""Each write of the operator fails in each way, and its watches lose, delay and break: a run ends the same, once.

The API server, the Job controller and the operator's process are real; only the kubelet is played.
`SODA_FAULTS=all` (`make faults`) takes every write with every fault alone, and waits a minute for silence;
`SODA_FAULTS_STEP=10` takes every tenth write of it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from soda_jobs.names import STAGE_LABEL
from tests.cluster.client import Cluster
from tests.cluster.field import Field, condition, digests, prepare, tiny_run
from tests.faults.api_proxy import CUT, DELAY, DROP, FAULTS, GONE, KILL_AFTER, KILL_BEFORE, ApiProxy

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster

ALL = os.environ.get("SODA_FAULTS") == "all"
STEP = int(os.environ.get("SODA_FAULTS_STEP", "1"))
SILENCE = 60.0 if ALL else 5.0
AT_ONCE = 4  # runs side by side, each in its namespace with its operator
STAGES = 17  # with preflight and publish
# One write in so many, each with a share of chance; a kill costs a start.
GAPS = {KILL_BEFORE: (18, 36), KILL_AFTER: (18, 36)}
WATCH_SHARES: Mapping[str, float] = {DROP: 0.03, DELAY: 0.03, CUT: 0.03, GONE: 0.02}
Hit = Callable[[int, str], str]


@pytest.fixture(scope="module", autouse=True)
def prepared(control_plane: Cluster) -> None:
    prepare(control_plane)


async def live(
    cluster: Cluster,
    folder: Path,
    hit: Hit = lambda number, write: "",
    hit_watch: Callable[[bytes], str] = lambda line: "",
) -> tuple[ApiProxy, dict[str, str]]:
    """A whole run under faults: what was written and the digests. Asserts all that must hold whatever happened."""
    proxy = ApiProxy(cluster.kubeconfig, hit, hit_watch)
    async with (
        proxy.serve(folder) as kubeconfig,
        Field.open(cluster, folder, kubeconfig=kubeconfig, start=False) as field,
    ):
        proxy.kill = field.operator.kill
        keeping = asyncio.create_task(field.operator.keep())
        try:
            await field.apply(tiny_run())
            status = await field.ended("Succeeded", "Failed", seconds=600)
            assert status["state"] == "Succeeded", (status["message"], proxy.happened)
            await field.rest(SILENCE)
            await check(field, proxy)
            return proxy, digests(await field.status())
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def check(field: Field, proxy: ApiProxy) -> None:
    assert await field.active_jobs() == [], proxy.happened
    assert await field.all("Service") == [], proxy.happened
    status = await field.status()
    assert condition(status, "Succeeded") == "True"
    assert {row["attempt"] for row in status["stages"]} == {1}, proxy.happened
    jobs = [job for job in await field.all("Job") if STAGE_LABEL in job["metadata"]["labels"]]
    deleted = [write for write in proxy.writes if write.startswith("DELETE")]
    found = Counter(job["metadata"]["labels"][STAGE_LABEL] for job in jobs)
    assert found == dict.fromkeys(digests(status), 1), deleted
    names = {job["metadata"]["name"] for job in jobs}
    started = Counter(name for name in field.player.started if name in names)
    assert started == dict.fromkeys(names, 1), proxy.happened  # no stage ran twice


@pytest.fixture(scope="module")
def undisturbed(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    """How many writes a run has, and its digests."""
    proxy, found = asyncio.run(live(control_plane, tmp_path_factory.mktemp("undisturbed")))
    assert len(found) == STAGES
    print(f"a run has {len(proxy.writes)} writes: {dict(Counter(map(kind_of, proxy.writes)))}")
    return len(proxy.writes), found


def kind_of(write: str) -> str:
    verb, path = write.split(" ")
    parts = path.split("/")
    return f"{verb} {parts[parts.index('namespaces') + 2]}{'/status' if path.endswith('/status') else ''}"


def now_and_then(fault: str, seed: int) -> Hit:
    """This fault again and again, after a number of writes that differs."""
    choice = Random(seed)
    low, high = GAPS.get(fault, (3, 9))
    left = [choice.randrange(2, high)]

    def hit(number: int, write: str) -> str:
        left[0] -= 1
        if left[0]:
            return ""
        left[0] = choice.randrange(low, high)
        return fault

    return hit


def once(fault: str, at: int) -> Hit:
    return lambda number, write: fault if number == at else ""


async def side_by_side(cluster: Cluster, folder: Path, hits: Mapping[str, Hit], same: dict[str, str]) -> None:
    room, wrong = asyncio.Semaphore(AT_ONCE), []

    async def one(name: str, hit: Hit) -> None:
        async with room:
            try:
                proxy, found = await live(cluster, folder / name, hit)
                assert proxy.happened, "nothing was hit"
                assert found == same, proxy.happened
            except (AssertionError, TimeoutError) as error:
                wrong.append(f"{name}: {error}")

    await asyncio.gather(*(one(name, hit) for name, hit in hits.items()))
    assert wrong == []


@pytest.mark.skipif(ALL, reason="SODA_FAULTS=all takes every write")
async def test_writes_fail_now_and_then(
    control_plane: Cluster, tmp_path: Path, undisturbed: tuple[int, dict[str, str]]
) -> None:
    hits = {fault: now_and_then(fault, seed) for seed, fault in enumerate(FAULTS)}
    await side_by_side(control_plane, tmp_path, hits, undisturbed[1])


@pytest.mark.skipif(not ALL, reason="hours; set SODA_FAULTS=all, or make faults")
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_write_fails_once(
    fault: str, control_plane: Cluster, tmp_path: Path, undisturbed: tuple[int, dict[str, str]]
) -> None:
    writes, same = undisturbed
    hits = {f"{fault}-{number}": once(fault, number) for number in range(1, writes + 1, STEP)}
    await side_by_side(control_plane, tmp_path, hits, same)


async def test_watches_lose_delay_and_break(
    control_plane: Cluster, tmp_path: Path, undisturbed: tuple[int, dict[str, str]]
) -> None:
    choice = Random(1)
    names = ["", *WATCH_SHARES]
    weights = [1 - sum(WATCH_SHARES.values()), *WATCH_SHARES.values()]
    runs = 8 if ALL else 2
    found = await asyncio.gather(
        *(
            live(
                control_plane,
                tmp_path / str(number),
                hit_watch=lambda line: choice.choices(names, weights)[0],
            )
            for number in range(runs)
        )
    )
    for proxy, digest in found:
        assert set(proxy.happened) & {CUT, GONE, DROP, DELAY}
        assert digest == undisturbed[1]
