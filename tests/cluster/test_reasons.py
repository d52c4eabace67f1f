"""What goes wrong in a cluster is told in the status by its own reason within seconds, and goes on when mended.

API server, admission, Job controller and scheduler are real; what only a kubelet sees is played in its words. All
cases run side by side under one operator, each in its namespace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import SodaError
from soda_jobs.names import SERVICE_LABEL, STAGE_LABEL
from soda_operator.cluster import Cluster as Api
from soda_operator.observed import stamp
from soda_operator.reasons import TABLE
from tests.cluster.client import RESTRICTED, Cluster
from tests.cluster.field import STORAGE, Field, OperatorProcess, condition, prepare, tiny_run
from tests.cluster.player import End, Player, good_end

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster

Raw = dict[str, Any]
AT_ONCE = 12
SECONDS, LATE_SECONDS = 90, 300  # generous: the machine may be busy, and some stages come late in a run
DEADLINES = '{"start": 15, "progress": 15}'
VERSION = "admissionregistration.k8s.io/v1"


@dataclass(frozen=True)
class Case:
    """One fault: what is there before, what the kubelet reports, and what the status must say."""

    reason: str
    says: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Raw, ...] = ()  # objects of the namespace
    outside: tuple[Raw, ...] = ()  # objects of the cluster; {ns} is the namespace
    waits: tuple[str, str] | None = None  # of a container that does not start
    end: End | None = None  # of the first pod of the stage
    is_stuck: bool = False  # runs and does nothing
    is_held: bool = False  # is never started
    is_ready: bool = True
    stage: str = "preflight"
    mend: tuple[Raw, ...] = ()  # made when the reason was told; what was there before is deleted
    change: Mapping[str, Any] | None = None  # of the spec


def job_pods(**settings: Any) -> Raw:
    return {"pods": {"jobs": settings}}


def named(kind: str, name: str, version: str = "v1", **rest: Any) -> Raw:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest}


def policy(resource: str, group: str) -> tuple[Raw, ...]:
    """A policy of the cluster that refuses every such object of the namespace."""
    rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": f"no {resource} on Sundays"}],
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "{ns}"}}}
    binding = {"policyName": "{ns}", "validationActions": ["Deny"], "matchResources": here}
    return (
        named("ValidatingAdmissionPolicy", "{ns}", VERSION, spec=spec),
        named("ValidatingAdmissionPolicyBinding", "{ns}", VERSION, spec=binding),
    )


def host_network() -> tuple[Raw, ...]:
    """A policy that changes pods, so that Pod Security does not allow them any more."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    patch = {"applyConfiguration": {"expression": "Object{spec: Object.spec{hostNetwork: true}}"}}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": [{"patchType": "ApplyConfiguration", **patch}],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "{ns}"}}}
    return (
        named("MutatingAdmissionPolicy", "{ns}", VERSION, spec=spec),
        named(
            "MutatingAdmissionPolicyBinding", "{ns}", VERSION, spec={"policyName": "{ns}", "matchResources": here}
        ),
    )


TRAINING = {**tiny_run()["spec"]["training"], "gpusPerNode": 1}
OTHERS_JOB = {
    "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}},
    "suspend": True,
}
SECRET = 'secret "s3" not found'
KEY = "couldn't find key AWS_ACCESS_KEY_ID in Secret team/s3"
CASES = {
    "quota": Case("QuotaExceeded", "exceeded quota: none", before=(
        named("ResourceQuota", "none", spec={"hard": {"pods": "0"}}),)),
    "limit range": Case("LimitRangeRefused", "minimum cpu usage per Container is 8", before=(
        named("LimitRange", "big", spec={"limits": [{"type": "Container", "min": {"cpu": "8"}}]}),)),
    "pod security": Case("PodSecurityRefused", "host namespaces", outside=host_network()),
    "runtime class": Case("RuntimeClassMissing", 'RuntimeClass "{ns}" not found',
        spec={"execution": {"languages": ["python"], "runtimeClassName": "{ns}"}}, stage="sandbox-python",
        mend=(named("RuntimeClass", "{ns}", "node.k8s.io/v1", handler="runsc"),)),
    "service account": Case("ServiceAccountMissing", 'serviceaccount "trainer" not found',
        spec=job_pods(serviceAccountName="trainer"), mend=(named("ServiceAccount", "trainer"),)),
    "priority class": Case("PriorityClassMissing", "no PriorityClass with name {ns}",
        spec=job_pods(priorityClassName="{ns}"),
        mend=(named("PriorityClass", "{ns}", "scheduling.k8s.io/v1", value=1),)),
    "unschedulable": Case("Unschedulable", "nodes are available", spec=job_pods(nodeSelector={"a": "b"}),
        is_held=True),
    "gpu": Case("GpuUnavailable", "Insufficient nvidia.com/gpu", spec={"training": TRAINING}, stage="student",
        is_held=True),
    "image": Case("ImagePullFailed", "not found",
        waits=("ImagePullBackOff", 'Back-off pulling image "x:1": not found')),
    "image name": Case("ImageNameInvalid", "couldn't parse",
        waits=("InvalidImageName", "couldn't parse image name")),
    "secret": Case("SecretMissing", SECRET, waits=("CreateContainerConfigError", SECRET)),
    "secret key": Case("SecretKeyMissing", KEY, waits=("CreateContainerConfigError", KEY)),
    "container": Case("ContainerNotCreated", "not found in $PATH",
        waits=("RunContainerError", 'exec: "python": executable file not found in $PATH')),
    "policy on jobs": Case("ObjectRefused", "no jobs on Sundays", outside=policy("jobs", "batch")),
    "policy on pods": Case("PodsNotCreated", "no pods on Sundays", outside=policy("pods", "")),
    "name": Case("NameTaken", "does not belong to the run",
        before=(named("Job", "tiny-preflight-1", "batch/v1", spec=OTHERS_JOB),)),
    "memory": Case("OutOfMemory", "raise spec.pods.<role>.limits.memory", end=End(137, reason="OOMKilled"),
        change={"retryToken": "1"}),
    "input": Case("InvalidInput", "no such bucket", end=End(64, '{"message": "no such bucket"}'),
        change={"retryToken": "1"}),
    "gave up": Case("GaveUp", "nothing left", end=End(65, '{"message": "nothing left"}')),
    "bug": Case("Bug", "KeyError", end=End(70, "Traceback\nKeyError: 'x'")),
    "away": Case("Unavailable", "the store is away", end=End(75, '{"message": "the store is away"}')),
    "isolation": Case("SandboxNotIsolated", "the API server answers", end=End(77, "the API server answers")),
    "killed": Case("Killed", "exit code 137", end=End(137)),
    "node lost": Case("Evicted", "DeletionByTaintManager", end=End(137, disruption="DeletionByTaintManager")),
    "eviction": Case("Evicted", "EvictionByEvictionAPI", end=End(143, disruption="EvictionByEvictionAPI")),
    "node pressure": Case("Evicted", "TerminationByKubelet", end=End(137, disruption="TerminationByKubelet")),
    "preemption": Case("Preempted", "PreemptionByScheduler", end=End(143, disruption="PreemptionByScheduler")),
    "no progress": Case("NoProgress", "the last was", is_stuck=True),
    "start deadline": Case("StartDeadline", "15 s", stage="teacher", is_ready=False),
    "storage": Case("StorageMissing", "s3://bucket/prefix", spec={"storage": {"url": ".soda/store"}},
        change={"storage": STORAGE}),
    "budget": Case("BudgetExhausted", "spec.budget.hours", spec={"budget": {"hours": 0.001}}, is_stuck=True,
        change={"budget": {"hours": 100}}),
    "suspended": Case("Suspended", "set it to false", spec={"suspend": True}, change={"suspend": False}),
    "cancelled": Case("Cancelled", "new spec.retryToken", spec={"cancel": True},
        change={"cancel": False, "retryToken": "1"}),
}  # fmt: skip


@dataclass
class Told:
    """What a case came to."""

    status: Raw
    seconds: float
    after: str = ""  # progress once it was mended


@dataclass
class Stand:
    """One case on its way."""

    case: Case
    is_mended: bool = False
    ended: bool = False

    def is_mine(self, pod: Mapping[str, Any]) -> bool:
        found = pod["metadata"]["labels"]
        return not self.is_mended and self.case.stage in (found.get(STAGE_LABEL), found.get(SERVICE_LABEL))


@pytest.fixture(scope="module")
def told(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Told | BaseException]:
    prepare(control_plane)
    return asyncio.run(everything(control_plane, tmp_path_factory.mktemp("reasons")))


async def everything(cluster: Cluster, folder: Path) -> Mapping[str, Told | BaseException]:
    home = await asyncio.to_thread(cluster.make_namespace)
    settings = {"SODA_STORAGE": "", "SODA_DEADLINES": DEADLINES}
    operator = OperatorProcess(cluster.kubeconfig, folder, home, everywhere=True, settings=settings)
    api = await Api.connect(str(cluster.kubeconfig))
    stands: dict[str, Stand] = {}
    player = Player(api, at_once=4)
    set_player(player, stands)
    operator.start()
    room = asyncio.Semaphore(AT_ONCE)
    tasks = [asyncio.create_task(player.play()), asyncio.create_task(heartbeat(api))]
    try:
        one = partial(live, cluster, api, operator, player, stands, room)
        found = await asyncio.gather(*map(one, CASES.values()), return_exceptions=True)
        return dict(zip(CASES, found, strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        operator.stop()
        await api.close()
        await asyncio.to_thread(cluster.kubectl, "delete", "node", "played", "--ignore-not-found")
        await asyncio.to_thread(cluster.drop_namespaces, [home, *stands])


def set_player(player: Player, stands: Mapping[str, Stand]) -> None:
    """What the played kubelet does with a pod."""

    def stand(pod: Mapping[str, Any]) -> Stand | None:
        found = stands.get(pod["metadata"]["namespace"])
        return found if found is not None and found.is_mine(pod) else None

    def waits(pod: Mapping[str, Any]) -> tuple[str, str] | None:
        found = stand(pod)
        return found.case.waits if found else None

    def starts(pod: Mapping[str, Any]) -> bool:
        found = stand(pod)
        return found is None or not (found.case.is_held or found.ended)  # only the first pod of a stage ends

    def ends(pod: Mapping[str, Any]) -> End | None:
        found = stand(pod)
        if found is not None and found.case.is_stuck:
            return None
        if found is not None and found.case.end is not None:
            found.ended = True
            return found.case.end
        return good_end(pod)

    def is_ready(pod: Mapping[str, Any]) -> bool:
        found = stand(pod)
        return found is None or found.case.is_ready

    player.waits, player.starts, player.ends, player.is_ready = waits, starts, ends, is_ready


async def live(
    cluster: Cluster,
    api: Api,
    operator: OperatorProcess,
    player: Player,
    stands: dict[str, Stand],
    room: asyncio.Semaphore,
    case: Case,
) -> Told:
    async with room:
        namespace = await asyncio.to_thread(cluster.make_namespace, RESTRICTED)
        field = Field(api, namespace, operator, player)
        stand = stands[namespace] = Stand(case)
        async with objects(cluster, namespace, case):
            await field.apply(tiny_run(**filled({"storage": STORAGE, **case.spec}, namespace)))
            begun = time.monotonic()
            says = case.says.replace("{ns}", namespace)
            status = await field.until(lambda status: is_told(status, case.reason, says), patience(case))
            found = Told(status, time.monotonic() - begun)
        stand.is_mended = True
        if not is_mendable(case):
            return found
        for item in filled(case.mend, namespace):
            await asyncio.to_thread(cluster.apply, item, namespace=namespace)
        if case.change:
            await field.change(**case.change)
        then = status.get("progress") or "0/17"
        after = await field.until(
            lambda status: (
                status["state"] in ("Running", "Pending", "Succeeded") and later(status["progress"], then)
            ),
            SECONDS,
        )
        found.after = after["progress"]
        await field.change(cancel=True)  # the others have the machine
        return found


def is_mendable(case: Case) -> bool:
    return TABLE[case.reason].kind != "fatal" or case.change is not None


def patience(case: Case) -> float:
    return SECONDS if case.stage == "preflight" else LATE_SECONDS


def later(progress: str, then: str) -> bool:
    return bool(progress) and int(progress.split("/")[0]) > int(then.split("/")[0])


def is_told(status: Mapping[str, Any], reason: str, says: str) -> bool:
    blocks = [status, *status.get("stages", ()), *status.get("services", ())]
    return any(block.get("reason") == reason and says in block.get("message", "") for block in blocks)


def filled(block: Any, namespace: str) -> Any:
    """A copy with the name of the namespace in it."""
    if isinstance(block, str):
        return block.replace("{ns}", namespace)
    if isinstance(block, Mapping):
        return {key: filled(value, namespace) for key, value in block.items()}
    if isinstance(block, Sequence):
        return [filled(item, namespace) for item in block]
    return block


@asynccontextmanager
async def objects(cluster: Cluster, namespace: str, case: Case) -> AsyncIterator[None]:
    before, outside = filled(case.before, namespace), filled(case.outside, namespace)
    for item in (*before, *outside):
        await asyncio.to_thread(cluster.apply, item, namespace=namespace)
    if outside:
        await asyncio.sleep(2)  # the API server reads policies now and then
    try:
        yield
    finally:
        for item in (*before, *outside):
            words = ("delete", item["kind"], item["metadata"]["name"], "-n", namespace)
            await asyncio.to_thread(cluster.kubectl, *words)


async def heartbeat(api: Api) -> None:
    """A node that is ready and has no GPU, so that the scheduler has something to say."""
    with suppress(SodaError):
        await api._call("POST", "/api/v1/nodes", body=named("Node", "played"))
    amounts = {"cpu": "1000", "memory": "1000Gi", "pods": "1000", "ephemeral-storage": "1000Gi"}
    while True:
        now = stamp(time.time())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        status = {"status": {"conditions": [ready], "capacity": amounts, "allocatable": amounts}}
        with suppress(SodaError):
            path = "/api/v1/nodes/played/status"
            await api._call("PATCH", path, body=status, content="application/strategic-merge-patch+json")
        await asyncio.sleep(5)


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_told_and_mended(name: str, told: Mapping[str, Told | BaseException]) -> None:
    found, case = told[name], CASES[name]
    if isinstance(found, BaseException):
        raise found
    assert found.seconds < patience(case)
    if is_mendable(case):
        assert found.after, "it did not go on"
    if TABLE[case.reason].kind == "block" and case.reason != "BudgetExhausted":
        assert condition(found.status, "Stalled") == "True" or found.status["state"] == "Running"
    print(f"{name}: {case.reason} after {found.seconds:.1f} s; {found.status['message']}")


def test_at_least_twenty_reasons() -> None:
    assert len({case.reason for case in CASES.values()}) >= 20
