"""Runs that wait in a queue of the real Kueue: for quota, for a queue that is missing, and after preemption.

Kueue, the API server, the Job controller, the scheduler and the operator are real; only the kubelet is played.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.names import QUEUE_LABEL, SERVICE_LABEL, STAGE_LABEL
from soda_operator.cluster import MANAGER
from tests.cluster.client import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.field import Field, prepare, tiny_run
from tests.cluster.kueue import Kueue, cluster_queue, condition, local_queue, priority
from tests.cluster.played_node import played_node
from tests.cluster.player import End, good_end

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster

Raw = dict[str, Any]
QUEUE = "team"
ANSWER, TRAIN = "r1-correct", "r1-sft"  # a stage that asks a server, and one that trains
NEEDS = "700m"  # the tiny run's servers at one time, two of 250m, and a stage for each


@pytest.fixture(scope="module")
def kueue(control_plane: Cluster) -> Iterator[Kueue]:
    """The control plane with Kueue beside it and two priorities."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("Kueue runs beside a control plane of the tests; unset SODA_TEST_KUBECONFIG")
    prepare(control_plane)
    running = Kueue(control_plane)
    try:
        running.start()
        control_plane.apply(priority("soda-low", 10), priority("soda-high", 1000))
        yield running
    finally:
        running.stop()


@asynccontextmanager
async def queued(plane: ControlPlane, folder: Path, cpu: str) -> AsyncIterator[Field]:
    """A namespace whose LocalQueue `team` has so many processors to give."""
    async with Field.open(plane, folder) as field, played_node(field.api):
        name = f"queue-{uuid.uuid4().hex[:8]}"
        quota = {"cpu": cpu, "memory": "64Gi"}
        queues = (cluster_queue(name, quota), local_queue(QUEUE, field.namespace, name))
        await asyncio.to_thread(plane.apply, *queues)
        yield field


def blocker(namespace: str, cpu: str, **labels: str) -> Raw:
    """Somebody else's Job in the same queue; it never ends."""
    container = {
        "name": "main",
        "image": "localhost/none:1",
        "resources": {"requests": {"cpu": cpu}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    meta = {"name": "blocker", "namespace": namespace, "labels": {QUEUE_LABEL: QUEUE, **labels}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {"spec": spec}}}


async def block(field: Field, plane: ControlPlane, cpu: str, **labels: str) -> None:
    await asyncio.to_thread(plane.apply, blocker(field.namespace, cpu, **labels))
    await eventually(lambda: _is_admitted(field, "blocker"))


async def unblock(field: Field) -> None:
    await field.api.delete("Job", field.namespace, "blocker")


async def eventually(done: Callable[[], Any], seconds: float = 60) -> Any:
    """What `await done()` returns once it is true."""
    end = asyncio.get_running_loop().time() + seconds
    while not (found := await done()):
        assert asyncio.get_running_loop().time() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.2)
    return found


async def loads(field: Field) -> dict[str, Raw]:
    """Workloads by the name of their Job."""
    return {item["metadata"]["ownerReferences"][0]["name"]: item for item in await field.all("Workload")}


async def _is_admitted(field: Field, job: str) -> bool:
    found = (await loads(field)).get(job, {})
    return bool(condition(found, "Admitted").get("status") == "True")


async def jobs(field: Field, run: str = "tiny") -> dict[str, Raw]:
    found = await field.all("Job")
    return {job["metadata"]["name"]: job for job in found if job["metadata"]["labels"].get("soda.dev/run") == run}


def owners_of_suspend(job: Raw) -> set[str]:
    managed = job["metadata"].get("managedFields", ())
    return {item["manager"] for item in managed if "f:suspend" in item["fieldsV1"].get("f:spec", {})}


def hold(field: Field, stage: str) -> Callable[[], None]:
    """Stages whose name begins so run until the returned function is called."""
    held = [True]

    def ends(pod: Any) -> End | None:
        name = pod["metadata"]["labels"][STAGE_LABEL]
        return None if held[0] and name.startswith(stage) else good_end(pod)

    field.player.ends = ends

    def release() -> None:
        held[0] = False

    return release


def ended(job: Raw) -> bool:
    return bool(job.get("status", {}).get("conditions")) and not job["spec"].get("suspend")


def row(status: Raw, stage: str) -> Raw:
    return next((item for item in status.get("stages", ()) if item["name"].startswith(stage)), {})


def lost(status: Raw) -> dict[str, tuple[int, int]]:
    """Stages that took more than one Job, or had a failure."""
    rows = status["stages"]
    return {
        item["name"]: (item["attempt"], item.get("failures", 0))
        for item in rows
        if item["attempt"] != 1 or item.get("failures")
    }


async def test_waits_for_quota_and_is_admitted_job_by_job(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "1") as field:
        await block(field, kueue.plane, "950m")
        await field.apply(tiny_run(queue=QUEUE))
        status = await field.until(lambda status: status.get("reason") == "WaitingForQueue")
        assert status["state"] == "Waiting"
        assert "insufficient unused quota for cpu in flavor default-flavor, 50m more needed" in status["message"]
        assert f"in queue {QUEUE}: the Job waits in its Kueue queue" in status["message"]
        assert status["message"].endswith("a stage and its servers need theirs together")
        assert field.player.started == []
        await unblock(field)
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}
        made = await jobs(field)
        for name, load in (await loads(field)).items():
            assert condition(load, "Admitted") or name == "blocker", name
        for name, job in made.items():
            assert MANAGER not in owners_of_suspend(job), name
            assert any(owner.startswith("kueue") for owner in owners_of_suspend(job)), name


async def test_without_a_queue_nothing_is_suspended(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "10m") as field:
        await field.apply(tiny_run())
        await field.until(lambda status: row(status, "preflight").get("state") == "done")
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert await field.all("Workload") == []
        assert {owner for job in (await jobs(field)).values() for owner in owners_of_suspend(job)} == set()


async def test_a_missing_queue_is_told_and_the_next_step_helps(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "1") as field:
        await field.apply(tiny_run(queue="nowhere"))
        status = await field.until(lambda status: status.get("reason") == "QueueMissing")
        assert status["state"] == "Stalled"
        assert "LocalQueue nowhere doesn't exist" in status["message"]
        assert status["message"].endswith("make the LocalQueue, or change spec.queue")
        await field.change(queue=QUEUE)  # what waits in the missing queue is made anew in this one
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}
        assert {job["metadata"]["labels"][QUEUE_LABEL] for job in (await jobs(field)).values()} == {QUEUE}


async def test_a_quota_that_can_never_be_enough_is_told(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "50m") as field:
        await field.apply(tiny_run(queue=QUEUE))
        status = await field.until(lambda status: status.get("reason") == "QueueTooSmall")
        assert status["state"] == "Stalled"
        assert "request > maximum capacity (100m > 50m)" in status["message"]


async def test_a_run_whose_servers_fill_its_quota_goes_one_stage_at_a_time(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "500m") as field:  # two of its servers, and not one stage beside them
        students: set[str] = set()

        def starts(pod: Raw) -> bool:
            """Both servers of the student are ready at once, so that neither stage was first."""
            service = pod["metadata"]["labels"].get(SERVICE_LABEL, "")
            if service.startswith("student"):
                students.add(service)
                return len(students) == 2
            return True

        field.player.starts = starts
        await field.apply(tiny_run(queue=QUEUE, pods={"train": {"requests": {"cpu": "100m"}}}))
        await field.until(lambda status: len([item for item in status.get("services", ()) if item["ready"]]) == 2)
        status = await field.ended("Succeeded", "Failed", seconds=400)
        assert status["state"] == "Succeeded", status["message"]
        assert all(not failures for _, failures in lost(status).values())


async def test_a_higher_priority_preempts_and_nothing_is_lost(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "650m") as field:
        release = hold(field, TRAIN)
        await field.apply(tiny_run(queue=QUEUE, priority="soda-low"))
        await field.until(lambda status: row(status, TRAIN).get("state") == "running")
        [before] = [job for name, job in (await jobs(field)).items() if TRAIN in name]
        name = before["metadata"]["name"]
        await field.apply(tiny_run("first", queue=QUEUE, priority="soda-high"))
        await field.until(lambda status: row(status, TRAIN).get("state") == "running", name="first")
        status = await field.until(lambda status: "(" in row(status, TRAIN).get("message", ""))
        said = row(status, TRAIN)["message"]
        assert "insufficient unused quota for cpu" in said or "Preempted to accommodate" in said
        assert (status["state"], status["reason"]) == ("Waiting", "WaitingForQueue")
        assert row(status, TRAIN)["state"] == "starting"
        load = (await loads(field))[name]
        assert condition(load, "Preempted")["reason"] == "InClusterQueue"
        release()
        for run in ("first", "tiny"):
            status = await field.ended("Succeeded", "Failed", name=run)
            assert status["state"] == "Succeeded", status["message"]
            assert [item["name"] for item in status["stages"] if item.get("failures")] == []
        assert row(status, TRAIN)["attempt"] == 1
        after = (await jobs(field))[name]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert "failed" not in after["status"]  # the pod that was taken away cost no retry
        assert field.player.started.count(name) > 1
        for job in (await jobs(field)).values():
            assert MANAGER not in owners_of_suspend(job), job["metadata"]["name"]


async def test_a_stage_whose_server_is_preempted_waits_for_it(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, NEEDS) as field:
        release = hold(field, ANSWER)
        await field.apply(tiny_run(queue=QUEUE, priority="soda-low"))
        status = await field.until(lambda status: row(status, ANSWER).get("state") == "running")
        [held] = [item["name"] for item in status["stages"] if item["state"] == "running"]
        await block(field, kueue.plane, "650m", **{"kueue.x-k8s.io/priority-class": "soda-high"})
        status = await field.until(lambda status: status.get("reason") == "WaitingForQueue")
        assert row(status, held)["state"] == "waiting"  # it gave its share back
        assert not [name for name, job in (await jobs(field)).items() if held in name and not ended(job)]
        await unblock(field)
        release()
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {held: (2, 0)}


async def test_who_stops_a_job_in_kueue_keeps_it_stopped(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "1") as field:
        release = hold(field, TRAIN)
        await field.apply(tiny_run(queue=QUEUE))
        await field.until(lambda status: row(status, TRAIN).get("state") == "running")
        [name] = [name for name in await jobs(field) if TRAIN in name]
        load = (await loads(field))[name]["metadata"]["name"]
        await _activate(kueue.plane, field, load, False)
        status = await field.until(lambda status: row(status, TRAIN).get("state") == "starting")
        status = await field.until(lambda status: "The workload is deactivated" in status["message"])
        assert status["reason"] == "WaitingForQueue"
        for _ in range(20):
            assert (await jobs(field))[name]["spec"]["suspend"] is True
            await asyncio.sleep(0.5)
        await _activate(kueue.plane, field, load, True)
        release()
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}
        assert MANAGER not in owners_of_suspend((await jobs(field))[name])


async def _activate(plane: ControlPlane, field: Field, load: str, active: bool) -> None:
    patch = json.dumps({"spec": {"active": active}})
    words = ("patch", "workload", load, "-n", field.namespace, "--type=merge", "-p", patch)
    await asyncio.to_thread(plane.kubectl, *words)


async def test_another_queue_is_for_jobs_that_do_not_run_yet(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "1") as field:
        target = (await asyncio.to_thread(kueue.plane.get, "localqueue", QUEUE, namespace=field.namespace))["spec"]
        other = local_queue("other", field.namespace, target["clusterQueue"])
        await asyncio.to_thread(kueue.plane.apply, other)
        release = hold(field, TRAIN)
        await field.apply(tiny_run(queue=QUEUE))
        await field.until(lambda status: row(status, "r0-tutor-heldout-eval").get("state") == "done")
        await field.until(lambda status: row(status, TRAIN).get("state") == "running")
        before = await jobs(field)
        await field.change(queue="other")
        await asyncio.sleep(5)
        now = await jobs(field)
        assert {name: job["metadata"]["uid"] for name, job in now.items()} == {
            name: job["metadata"]["uid"] for name, job in before.items()
        }
        release()
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}
        queues = {name: job["metadata"]["labels"][QUEUE_LABEL] for name, job in (await jobs(field)).items()}
        assert queues == {name: QUEUE if name in before else "other" for name in queues}
        assert set(queues.values()) == {QUEUE, "other"}


async def test_a_server_that_keeps_quota_from_its_stage_is_told(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "150m") as field:
        await field.apply(tiny_run(queue=QUEUE))
        status = await field.until(lambda status: "50m more needed" in row(status, ANSWER).get("message", ""))
        said = row(status, ANSWER)["message"]
        assert said.startswith(f"Job tiny-{ANSWER}-1 in queue {QUEUE}: ")
        assert said.endswith("a stage and its servers need theirs together")
        assert status["reason"] == "WaitingForQueue"
        assert [item["ready"] for item in status["services"]] == [True]
        target = await asyncio.to_thread(kueue.plane.get, "localqueue", QUEUE, namespace=field.namespace)
        enough = cluster_queue(target["spec"]["clusterQueue"], {"cpu": "1", "memory": "64Gi"})
        await asyncio.to_thread(kueue.plane.apply, enough)
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}


async def test_kueue_being_away_is_told_and_passes(kueue: Kueue, tmp_path: Path) -> None:
    async with queued(kueue.plane, tmp_path, "1") as field:
        kueue.halt()
        try:
            await field.apply(tiny_run(queue=QUEUE))
            status = await field.until(lambda status: status.get("reason") == "ObjectRefused")
            assert status["state"] == "Stalled"
            assert 'failed calling webhook "mjob.kb.io"' in status["message"]
        finally:
            kueue.resume()
        status = await field.ended("Succeeded", "Failed")
        assert status["state"] == "Succeeded", status["message"]
        assert lost(status) == {}
