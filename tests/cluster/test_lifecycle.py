"""What users do with a run on a real API server: suspend, cancel, retry, apply again, delete. Two operators."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.names import STAGE_LABEL
from soda_operator.cluster import Gone, Refused
from soda_operator.lease import DURATION
from tests.cluster.client import Cluster
from tests.cluster.field import Field, condition, digests, prepare, tiny_run
from tests.cluster.player import End, good_end

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def prepared(control_plane: Cluster) -> None:
    prepare(control_plane)


@pytest.fixture
async def field(control_plane: Cluster, tmp_path: Path) -> AsyncIterator[Field]:
    async with Field.open(control_plane, tmp_path) as opened:
        yield opened


def stays(*stages: str) -> Any:
    """Pods of these stages go on running."""
    return lambda pod: None if pod["metadata"]["labels"][STAGE_LABEL] in stages else good_end(pod)


def running(stage: str) -> Any:
    return lambda status: any(
        row["name"] == stage and row["state"] == "running" for row in status.get("stages", ())
    )


def attempts(status: Mapping[str, Any]) -> dict[str, int]:
    return {row["name"]: row["attempt"] for row in status["stages"]}


async def kubectl(cluster: Cluster, *words: str) -> str:
    return await asyncio.to_thread(cluster.kubectl, *words, timeout=300)


async def gone(field: Field, kind: str, name: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await field.api.get(kind, field.namespace, name)
        except Gone:
            return
        await asyncio.sleep(0.3)
    raise TimeoutError(f"{kind} {name} is still there\n{field.operator.log()}")


async def no_pods(field: Field, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while pods := await field.all("Pod"):
        assert time.monotonic() < end, [pod["metadata"]["name"] for pod in pods]
        await asyncio.sleep(0.3)


async def test_kubectl_waits_for_the_end_and_applying_again_changes_nothing(
    field: Field, control_plane: Cluster
) -> None:
    await field.apply(tiny_run())
    where = ("-n", field.namespace)
    await kubectl(control_plane, "wait", *where, "--for=condition=Succeeded", "drun/tiny", "--timeout=240s")
    run = await field.run()
    assert run["status"]["observedGeneration"] == run["metadata"]["generation"]
    assert run["status"]["rounds"] == [
        {"round": 0, "scores": {"pass@1": 0.0}},
        {"round": 1, "scores": {"pass@1": 0.1}},
    ]
    line = await kubectl(control_plane, "get", *where, "drun/tiny", "--no-headers")
    assert line.split()[:7] == ["tiny", "soda", "1/1", "17/17", "0.10", "Succeeded", line.split()[6]]
    before = await field.rest(5)  # the Job controller says Complete a moment after the run has ended
    await field.apply(tiny_run())
    assert await field.rest(5) == before


async def test_suspend_and_resume(field: Field) -> None:
    field.player.ends = stays("r1-correct")
    await field.apply(tiny_run())
    await field.until(running("r1-correct"), 180)
    await field.change(suspend=True)
    status = await field.until(lambda status: status["state"] == "Suspended")
    assert condition(status, "Suspended") == "True"
    assert condition(status, "Succeeded") == "Unknown"
    await field.rest(3)
    assert await field.active_jobs() == []
    assert await field.all("Service") == []
    held = await field.status()  # any stage beside r1-correct may have been at work too
    done = {row["name"] for row in held["stages"] if row["state"] == "done"}
    assert "r1-correct" not in done
    assert attempts(held)["r1-correct"] == 1
    field.player.ends = good_end
    await field.change(suspend=False)
    status = await field.ended("Succeeded", "Failed")
    assert status["state"] == "Succeeded", status["message"]
    assert attempts(status) == {name: before + (name not in done) for name, before in attempts(held).items()}
    assert all(digests(status)[name] == digests(held)[name] for name in done)


async def test_pods_share_the_stages_that_work_row_by_row(field: Field) -> None:
    await field.apply(tiny_run(parallelism=3))
    status = await field.ended("Succeeded", "Failed")
    assert status["state"] == "Succeeded", status["message"]
    jobs = {job["metadata"]["labels"].get(STAGE_LABEL): job["spec"] for job in await field.all("Job")}
    shared = {stage for stage, spec in jobs.items() if stage and spec["completions"] == spec["parallelism"] == 3}
    assert shared == {stage for stage in jobs if stage and stage.endswith(("-correct", "-answer", "-run"))}
    assert all(row["digest"] for row in status["stages"] if row["name"] in shared)


async def test_cancel_then_retry(field: Field) -> None:
    field.player.ends = stays("r1-correct")
    await field.apply(tiny_run())
    await field.until(running("r1-correct"), 180)
    await field.change(cancel=True)
    status = await field.ended("Cancelled")
    assert condition(status, "Succeeded") == "False"
    await field.rest(3)
    assert await field.active_jobs() == []
    with pytest.raises(Refused, match="does not bring a cancelled run back"):
        await field.change(cancel=False)
    field.player.ends = good_end
    await field.change(cancel=False, retryToken="again")
    assert (await field.ended("Succeeded", "Failed"))["state"] == "Succeeded"


async def test_retry_after_a_failure_keeps_what_is_done(field: Field, control_plane: Cluster) -> None:
    def fails(pod: Mapping[str, Any]) -> End | None:
        is_bad = pod["metadata"]["labels"][STAGE_LABEL] == "r1-sft"
        return End(65, json.dumps({"message": "the loss is not a number"})) if is_bad else good_end(pod)

    field.player.ends = fails
    await field.apply(tiny_run())
    status = await field.ended("Succeeded", "Failed")
    assert status["reason"] == "GaveUp"
    assert "the loss is not a number" in status["message"]
    where = ("-n", field.namespace)
    await kubectl(control_plane, "wait", *where, "--for=condition=Stalled", "drun/tiny", "--timeout=5s")
    field.player.ends = good_end
    await field.change(retryToken="1")
    after = await field.ended("Succeeded")
    done = digests(status)
    assert {attempts(after)[name] for name, digest in done.items() if digest} == {1}
    assert attempts(after)["r1-sft"] == 2
    assert {name: digest for name, digest in digests(after).items() if done[name]} == {
        name: digest for name, digest in done.items() if digest
    }


async def test_a_deleted_run_takes_its_pods_and_services_along(field: Field, control_plane: Cluster) -> None:
    field.player.ends = stays("r1-correct")
    await field.apply(tiny_run())
    await field.until(running("r1-correct"), 180)
    await kubectl(control_plane, "delete", "-n", field.namespace, "drun", "tiny", "--wait=false")
    await gone(field, "DistillationRun", "tiny", 30)  # no finalizer holds it
    await no_pods(field)
    for kind in ("Job", "Service", "ServiceAccount", "Secret", "NetworkPolicy"):
        left = [item["metadata"]["name"] for item in await field.all(kind)]
        assert [name for name in left if name.startswith("tiny")] == []


async def test_the_same_name_again_at_once(field: Field, control_plane: Cluster) -> None:
    """The second run is another one: it may not take the first one's results."""
    await field.apply(tiny_run())
    first = await field.ended("Succeeded")
    await kubectl(control_plane, "delete", "-n", field.namespace, "drun", "tiny", "--wait=false")
    await gone(field, "DistillationRun", "tiny", 30)
    await field.apply(tiny_run(seed=7))
    second = await field.ended("Succeeded", "Failed")
    assert second["state"] == "Succeeded", second["message"]
    assert digests(second)["report"] != digests(first)["report"]


@pytest.mark.parametrize("cascade", ["background", "foreground"])
async def test_deletion_policy_delete_cleans_up_first(field: Field, control_plane: Cluster, cascade: str) -> None:
    field.player.ends = stays("r1-correct", "cleanup")
    await field.apply(tiny_run(deletionPolicy="Delete"))
    await field.until(running("r1-correct"), 180)
    words = ("delete", "-n", field.namespace, "drun", "tiny", "--wait=false", f"--cascade={cascade}")
    await kubectl(control_plane, *words)
    end = time.monotonic() + 90
    while "tiny-cleanup-1" not in field.player.started:
        assert time.monotonic() < end, field.operator.log()
        await asyncio.sleep(0.2)
    assert await field.active_jobs() == ["tiny-cleanup-1"]
    assert (await field.run())["metadata"]["deletionTimestamp"]
    field.player.ends = good_end
    await gone(field, "DistillationRun", "tiny")


async def test_a_finished_run_goes_when_its_time_has_come(field: Field) -> None:
    await field.apply(tiny_run(ttlSecondsAfterFinished=5))
    await field.ended("Succeeded")
    await gone(field, "DistillationRun", "tiny", 60)
    await no_pods(field)


async def test_only_the_holder_of_the_lease_writes(field: Field, control_plane: Cluster, tmp_path: Path) -> None:
    """Two operators: the second takes over when the first is killed, and at once when it ends in peace."""
    second = type(field.operator)(control_plane.kubeconfig, tmp_path / "second", field.namespace, "operator-1")
    try:
        await holder(field, "operator-0", 60)
        second.start()
        await asyncio.sleep(8)
        assert second.is_alive, second.log()
        field.player.ends = stays("r1-correct")
        await field.apply(tiny_run())
        await field.until(running("r1-correct"), 180)
        assert (await lease(field))["holderIdentity"] == "operator-0"
        began = time.monotonic()
        field.operator.kill()
        field.player.ends = good_end
        await holder(field, "operator-1", 60)
        taken = time.monotonic() - began
        assert DURATION - 10 < taken < 40
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded"
        assert {row["attempt"] for row in status["stages"]} == {1}
        field.operator.stop()
        field.operator.start()
        await asyncio.sleep(8)
        began = time.monotonic()
        await asyncio.to_thread(second.stop, signal.SIGTERM)
        await holder(field, "operator-0", DURATION - 5)
        print(f"killed: taken over after {taken:.1f} s; ended: after {time.monotonic() - began:.1f} s")
    finally:
        second.stop()


async def lease(field: Field) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await field.api.get("Lease", field.namespace, "soda-operator"))["spec"]
    return found


async def holder(field: Field, name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (await lease(field))["holderIdentity"] == name:
                return
        except Gone:
            pass
        await asyncio.sleep(0.3)
    raise TimeoutError(f"{name} does not hold the lease after {seconds:g} s")
