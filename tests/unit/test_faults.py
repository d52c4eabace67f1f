"""Every reason is found from what a cluster really says. Messages are of Kubernetes 1.36, Kueue 0.14."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from soda_operator.accept import accept
from soda_operator.config import Config
from soda_operator.faults import Fault, disruption, failure, fault, refusal, waiting
from soda_operator.ledger import why_waiting
from soda_operator.observed import Job, Observed, Pod, Warned
from soda_operator.reasons import DECIDED, ENDED, TABLE, WAITING
from soda_operator.troubleshooting import ALERTS, render
from tests.unit.operator_world import tiny_run

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000.0
JOB = Job("run-r1-sft-1", "run", "r1-sft", "", "uid-1", "uid-0", NOW - 60, 1, 0)
POD = Pod("run-r1-sft-1-0-abcde", "run", JOB.name, "uid-2", "uid-1", NOW - 60, "Pending")
FORBIDDEN = 'Error creating: pods "run-r1-sft-1-0-" is forbidden: '
NODES = "0/3 nodes are available: "

# FailedCreate Events of the Job controller: the reason and what the API server answered.
NOT_CREATED = [
    ("QuotaExceeded", "exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2"),
    ("QuotaExceeded", "failed quota: compute: must specify limits.cpu for: main; limits.memory for: main"),
    ("LimitRangeRefused", "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
    ("LimitRangeRefused", "minimum cpu usage per Container is 1, but request is 100m"),
    ("LimitRangeRefused", "[maximum memory usage per Pod is 100Mi. No limit is specified]"),
    ("LimitRangeRefused", "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000"),
    (
        "PodSecurityRefused",
        'violates PodSecurity "restricted:latest": seccompProfile (pod or container "main" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    ),
    ("RuntimeClassMissing", 'pod rejected: RuntimeClass "gvisor" not found'),
    ("ServiceAccountMissing", 'error looking up service account team/trainer: serviceaccount "trainer" not found'),
    ("PriorityClassMissing", "no PriorityClass with name urgent was found"),
    (
        "PodsNotCreated",
        "ValidatingAdmissionPolicy 'no-pods' with binding 'no-pods' denied request: pods are not wanted here",
    ),
]

# Waiting containers: reason and message as the kubelet writes them.
NOT_STARTED = [
    ("ImagePullFailed", "ErrImagePull", 'failed to pull and unpack image "docker.io/library/x:1": not found'),
    ("ImagePullFailed", "ImagePullBackOff", 'Back-off pulling image "x:1": ErrImagePull: unauthorized'),
    ("ImagePullFailed", "ErrImageNeverPull", 'Container image "x:1" is not present with pull policy of Never'),
    ("ImagePullFailed", "SignatureValidationFailed", "image signature validation failed"),
    ("ImageNameInvalid", "InvalidImageName", 'Failed to apply default image tag "X!": couldn\'t parse image name'),
    ("SecretMissing", "CreateContainerConfigError", 'secret "s3" not found'),
    (
        "SecretKeyMissing",
        "CreateContainerConfigError",
        "couldn't find key AWS_ACCESS_KEY_ID in Secret team/s3",
    ),
    ("ContainerNotCreated", "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
    ("ContainerNotCreated", "CreateContainerError", "context deadline exceeded"),
    ("ContainerNotCreated", "RunContainerError", 'exec: "python": executable file not found in $PATH: unknown'),
    ("ContainerNotCreated", "StartError", "failed to create containerd task"),
]

# Events about a pod that has a node and no running container.
POD_EVENTS = [
    (
        "SandboxRuntimeFailed",
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start sandbox: exit status 128",
    ),
    (
        "RuntimeClassMissing",
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
        'no runtime for "runsc" is configured',
    ),
    ("SecretMissing", "FailedMount", 'MountVolume.SetUp failed for volume "ca" : secret "store-ca" not found'),
    (
        "SecretKeyMissing",
        "FailedMount",
        'MountVolume.SetUp failed for volume "ca" : references non-existent secret key: c',
    ),
    ("VolumeNotMounted", "FailedMount", "Unable to attach or mount volumes: timed out waiting for the condition"),
]

UNSCHEDULABLE = [
    ("GpuUnavailable", NODES + "3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available"),
    ("Unschedulable", NODES + "3 Insufficient memory. no new claims to deallocate"),
    ("Unschedulable", "no nodes available to schedule pods"),
    (
        "Unschedulable",
        NODES + "1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector.",
    ),
]

KUEUE = [
    (
        "WaitingForQueue",
        "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default",
    ),
    ("WaitingForQueue", ""),
    (
        "QueueTooSmall",
        "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor default-flavor,"
        " request > maximum capacity (2 > 1)",
    ),
    (
        "QueueTooSmall",
        "couldn't assign flavors to pod set main: resource nvidia.com/gpu unavailable in ClusterQueue",
    ),
    (
        "WaitingForQueue",
        "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor a, request > maximum"
        " capacity (2 > 1), insufficient unused quota for cpu in flavor b, 1 more needed",
    ),
    ("QueueMissing", "LocalQueue team-a doesn't exist"),
    ("QueueMissing", "LocalQueue team-a is inactive"),
    ("QueueMissing", "ClusterQueue research is inactive"),
]

REFUSED = [
    (
        "ObjectRefused",
        "RefusedForbidden",
        'jobs.batch "x" is forbidden: ValidatingAdmissionPolicy denied request: no',
    ),
    ("ObjectRefused", "RefusedInvalid", 'Job.batch "x" is invalid: spec.template.spec.tolerations[0].operator'),
    ("ObjectRefused", "RefusedBadRequest", 'admission webhook "guard.example.com" denied the request: no owner'),
    (
        "QuotaExceeded",
        "RefusedForbidden",
        'jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1',
    ),
    ("NameTaken", "NameTaken", "there is a Job of this name that does not belong to the run"),
]

# exit code, reason of the container, DisruptionTarget
ENDS = [
    ("InvalidInput", 64, "Error", ""),
    ("GaveUp", 65, "Error", ""),
    ("Bug", 70, "Error", ""),
    ("Unavailable", 75, "Error", ""),
    ("SandboxNotIsolated", 77, "Error", ""),
    ("OutOfMemory", 137, "OOMKilled", ""),
    ("Killed", 137, "Error", ""),
    ("Killed", 1, "Error", ""),
    ("Killed", 143, "Error", ""),
    ("Evicted", 143, "Error", "EvictionByEvictionAPI"),
    ("Evicted", 137, "Error", "DeletionByTaintManager"),
    ("Evicted", 143, "Error", "TerminationByKubelet"),
    ("Evicted", 143, "Error", "DeletionByPodGC"),
    ("Preempted", 143, "Error", "PreemptionByScheduler"),
]


def found(reason: str, why: Fault | None, said: str) -> None:
    assert why is not None
    assert why.reason == reason
    row = TABLE[reason]
    assert row.step in why.message
    assert " ".join(said.split()).rstrip(".;")[:100] in why.message


@pytest.mark.parametrize(("reason", "said"), NOT_CREATED)
def test_why_a_job_has_no_pod(reason: str, said: str) -> None:
    found(reason, waiting(JOB, [], [Warned("FailedCreate", FORBIDDEN + said)], NOW), said)


def test_a_job_without_pods_and_without_events() -> None:
    assert waiting(replace(JOB, created=NOW - 10), [], [], NOW) is None
    found("PodsNotCreated", waiting(JOB, [], [], NOW), "")


@pytest.mark.parametrize(("reason", "word", "said"), NOT_STARTED)
def test_why_a_container_does_not_start(reason: str, word: str, said: str) -> None:
    found(reason, waiting(JOB, [replace(POD, waiting=word, waiting_message=said)], [], NOW), said)


@pytest.mark.parametrize("word", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_waits_for_nothing(word: str) -> None:
    assert waiting(JOB, [replace(POD, waiting=word)], [], NOW) is None


@pytest.mark.parametrize(("reason", "word", "said"), POD_EVENTS)
def test_what_events_of_a_pod_say(reason: str, word: str, said: str) -> None:
    pod = replace(POD, waiting="ContainerCreating", node="node-1")
    observed = Observed({JOB.name: JOB}, {pod.name: pod}, {pod.name: (Warned(word, said),)})
    found(reason, why_waiting(JOB, [pod], observed, NOW), said)


def test_what_kept_a_job_from_a_pod_is_over_once_there_is_one() -> None:
    old = Warned("FailedCreate", FORBIDDEN + "exceeded quota: small")
    pod = replace(POD, waiting="ContainerCreating")
    observed = Observed({JOB.name: JOB}, {pod.name: pod}, {JOB.name: (old,)})
    assert why_waiting(JOB, [pod], observed, NOW) is None
    found("QuotaExceeded", why_waiting(JOB, [], observed, NOW), "exceeded quota: small")


@pytest.mark.parametrize(("reason", "said"), UNSCHEDULABLE)
def test_what_the_scheduler_says(reason: str, said: str) -> None:
    pod = replace(POD, unschedulable=said)
    found(reason, waiting(JOB, [pod], [], NOW), said)
    assert waiting(JOB, [replace(pod, created=NOW - 1)], [], NOW) is None  # it has only begun to look


@pytest.mark.parametrize(("reason", "said"), KUEUE)
def test_what_kueue_says(reason: str, said: str) -> None:
    job = replace(JOB, is_suspended=True, queue="team-a")
    why = waiting(job, [], [Warned("Kueue", said)], NOW)
    found(reason, why, said)
    assert why is not None
    assert "in queue team-a" in why.message


@pytest.mark.parametrize(("reason", "word", "said"), REFUSED)
def test_what_the_api_server_refuses(reason: str, word: str, said: str) -> None:
    found(reason, refusal("Job x", Warned(word, said)), said)


@pytest.mark.parametrize(("reason", "code", "word", "target"), ENDS)
def test_how_a_pod_ended(reason: str, code: int, word: str, target: str) -> None:
    pod = replace(POD, phase="Failed", exit_code=code, exit_reason=word, disruption=target)
    found(reason, failure(replace(JOB, outcome="Failed"), [pod]), "")


def test_the_last_words_of_a_stage_are_in_the_message() -> None:
    pod = replace(
        POD, phase="Failed", exit_code=64, termination='{"message": "spec.student.model: no such model"}'
    )
    assert "(spec.student.model: no such model)" in failure(JOB, [pod]).message
    pod = replace(pod, exit_code=1, termination="Traceback\nValueError: no")
    assert "exit code 1; ValueError: no" in failure(JOB, [pod]).message


def test_the_pod_that_ended_worst_and_last_counts() -> None:
    first = replace(POD, name="a", phase="Failed", exit_code=137, exit_reason="OOMKilled")
    last = replace(POD, name="b", phase="Failed", exit_code=75, created=NOW)
    assert failure(JOB, [first, last]).reason == "Unavailable"
    assert failure(JOB, []).reason == "Killed"


def test_a_disruption_names_the_pod() -> None:
    pod = replace(
        POD,
        disruption="DeletionByTaintManager",
        disruption_message="Taint manager: deleting due to NoExecute taint",
    )
    assert disruption(pod).message.startswith(f"pod {POD.name}: the node gave the pod up (Taint manager: ")


@pytest.mark.parametrize(
    ("reason", "spec"),
    [("InvalidSpec", {"rounds": 0}), ("StorageMissing", {"storage": {"url": ".soda/store"}})],
)
def test_what_the_spec_alone_decides(reason: str, spec: dict[str, object]) -> None:
    document = tiny_run(**spec)
    document["metadata"]["uid"] = "u"
    why = accept(document, Config())
    assert isinstance(why, Fault)
    assert why.reason == reason


def test_every_row_has_an_example() -> None:
    """Those of `ENDED` and `DECIDED` that need a run are in test_reconcile.py."""
    here = {
        case[0]
        for table in (NOT_CREATED, NOT_STARTED, POD_EVENTS, UNSCHEDULABLE, KUEUE, REFUSED, ENDS)
        for case in table
    }
    assert {row.reason for row in WAITING} <= here
    elsewhere = {"StartDeadline", "NoProgress", "ResultMissing", "TooManyAttempts"}
    assert {row.reason for row in ENDED} == {case[0] for case in ENDS} | elsewhere
    text = (Path(__file__).parent / "test_reconcile.py").read_text()
    for reason in (*elsewhere, "Suspended", "BudgetExhausted", "Cancelled"):
        assert f'"{reason}"' in text, reason
    assert {row.reason for row in DECIDED} == {
        "InvalidSpec",
        "StorageMissing",
        "Suspended",
        "BudgetExhausted",
        "Cancelled",
    }


def test_reasons_are_one_word_and_steps_are_no_sentences() -> None:
    assert len(TABLE) == len(WAITING) + len(ENDED) + len(DECIDED)
    for row in TABLE.values():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", row.reason)
        assert not row.what.endswith(".")
        assert not row.step.endswith(".")
        assert fault(row.reason, "Job x").message == f"Job x: {row.what}; {row.step}"


def test_a_long_message_is_cut_and_stays_on_one_line() -> None:
    message = fault("ObjectRefused", "Job x", "no\n" * 1000).message
    assert "\n" not in message
    assert len(message) < 1024


def test_the_page_of_reasons_is_fresh() -> None:
    argv = [sys.executable, "-m", "soda_operator.troubleshooting", "--check"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reason", TABLE)
def test_the_page_has_an_anchor_for_each_reason(reason: str) -> None:
    assert f"\n### {reason}\n" in render()
    assert f"(#{reason.lower()})" in render()


def test_every_alert_of_the_chart_has_its_place_in_the_page() -> None:
    rules = (ROOT / "charts/soda/templates/prometheusrule.yaml").read_text()
    assert re.findall(r"alert: (\w+)", rules) == list(ALERTS)
    assert re.findall(r"runbook_url: .*#(\w+)", rules) == [name.lower() for name in ALERTS]
    assert all(f"### {name}\n" in render() for name in ALERTS)
