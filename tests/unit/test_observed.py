"""The few fields that the operator keeps of Jobs and pods, from objects as the API sends them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from soda_operator.cache import Cache, is_at_rest
from soda_operator.observed import OWNER_ANNOTATION, Observed, epoch, job, pod, stamp
from soda_operator.surroundings import last_progress

Raw = dict[str, Any]
AT = "2026-11-21T16:00:00Z"
LABELS = {"soda.dev/run": "run", "soda.dev/stage": "r1-sft", "kueue.x-k8s.io/queue-name": "team-a"}
JOB: Raw = {
    "metadata": {
        "name": "run-r1-sft-1",
        "namespace": "team",
        "uid": "job-uid",
        "resourceVersion": "7",
        "creationTimestamp": AT,
        "labels": LABELS,
        "ownerReferences": [{"uid": "other", "controller": False}, {"uid": "run-uid", "controller": True}],
    },
    "spec": {
        "completions": 2,
        "suspend": True,
        "template": {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "8"}}}]}},
    },
}
POD: Raw = {
    "metadata": {
        "name": "run-r1-sft-1-0-abcde",
        "namespace": "team",
        "uid": "pod-uid",
        "resourceVersion": "8",
        "creationTimestamp": AT,
        "labels": {**LABELS, "batch.kubernetes.io/job-name": "run-r1-sft-1"},
        "ownerReferences": [{"uid": "job-uid", "controller": True}],
    },
    "spec": {"nodeName": "node-1"},
    "status": {"phase": "Running"},
}


def condition(kind: str, status: str = "True", **rest: str) -> Raw:
    return {"type": kind, "status": status, "lastTransitionTime": AT, **rest}


def pod_with(**status: Any) -> Raw:
    return {**POD, "status": status}


def test_a_new_job() -> None:
    found = job(JOB)
    assert (found.run, found.stage, found.service, found.queue) == ("run", "r1-sft", "", "team-a")
    assert (found.uid, found.owner, found.gpus, found.completions) == ("job-uid", "run-uid", 16, 2)
    assert (found.outcome, found.is_suspended, found.is_deleting) == ("", True, False)
    assert stamp(found.created) == AT


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("Complete", "Complete"),
        ("SuccessCriteriaMet", "Complete"),
        ("Failed", "Failed"),
        ("FailureTarget", "Failed"),
        ("Suspended", ""),
    ],
)
def test_the_outcome_is_known_before_the_last_pod_has_ended(kind: str, outcome: str) -> None:
    found = job({**JOB, "status": {"conditions": [condition(kind, reason="Why", message="so")]}})
    assert found.outcome == outcome
    assert (found.reason, found.message) == (("Why", "so") if outcome else ("", ""))
    assert found.ended == (epoch(AT) if outcome else None)
    assert job({**JOB, "status": {"conditions": [condition(kind, "False")]}}).outcome == ""


def test_a_job_that_outlives_its_run_says_whose_it_was() -> None:
    raw = copy.deepcopy(JOB)
    del raw["metadata"]["ownerReferences"]
    assert job(raw).owner == ""
    raw["metadata"]["annotations"] = {OWNER_ANNOTATION: "run-uid"}
    assert job(raw).owner == "run-uid"


def test_a_pod_on_its_way() -> None:
    found = pod({**POD, "status": {}})
    assert (found.phase, found.job, found.owner, found.node) == ("Pending", "run-r1-sft-1", "job-uid", "node-1")
    assert (found.is_ready, found.exit_code, found.waiting, found.unschedulable) == (False, None, "", "")
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no"}}
    found = pod(pod_with(phase="Pending", containerStatuses=[{"state": waiting}]))
    assert (found.waiting, found.waiting_message) == ("ErrImagePull", "no")
    said = condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes are available")
    assert pod(pod_with(conditions=[said])).unschedulable == "0/1 nodes are available"


def test_a_pod_that_runs_and_ends() -> None:
    state = {"running": {"startedAt": AT}}
    found = pod(pod_with(phase="Running", conditions=[condition("Ready")], containerStatuses=[{"state": state}]))
    assert found.is_ready
    assert found.started == epoch(AT)
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "message": "{}"}}
    found = pod(pod_with(phase="Succeeded", containerStatuses=[{"state": ended}]))
    assert (found.exit_code, found.exit_reason, found.termination) == (0, "Completed", "{}")
    found = pod(pod_with(phase="Failed", reason="Evicted"))
    assert (found.exit_code, found.exit_reason) == (None, "Evicted")


def test_a_disruption_counts_only_while_it_is_true() -> None:
    target = condition("DisruptionTarget", reason="PreemptionByScheduler", message="higher priority")
    found = pod(pod_with(phase="Failed", conditions=[target]))
    assert (found.disruption, found.disruption_message) == ("PreemptionByScheduler", "higher priority")
    assert pod(pod_with(phase="Failed", conditions=[{**target, "status": "False"}])).disruption == ""


def test_a_pod_that_is_being_deleted_says_until_when() -> None:
    raw = {**POD, "metadata": {**POD["metadata"], "deletionTimestamp": AT}}
    assert (pod(raw).is_deleting, pod(raw).gone_by) == (True, epoch(AT))
    assert (pod(POD).is_deleting, pod(POD).gone_by) == (False, None)


def test_pods_of_a_job_are_not_those_of_one_with_its_name_before() -> None:
    old = copy.deepcopy(POD)
    old["metadata"]["name"], old["metadata"]["ownerReferences"][0]["uid"] = "old", "old-uid"
    pods = {item["metadata"]["name"]: pod(item) for item in (old, POD)}
    found = Observed({"run-r1-sft-1": job(JOB)}, pods).pods_of("run-r1-sft-1")
    assert [item.name for item in found] == [POD["metadata"]["name"]]
    assert len(Observed({}, pods).pods_of("run-r1-sft-1")) == 2


def test_the_cache_takes_no_older_version() -> None:
    cache, key = Cache(), ("team", "run")
    newer = {**JOB, "metadata": {**JOB["metadata"], "resourceVersion": "10"}}
    assert cache.put("Job", newer) == key
    assert cache.put("Job", JOB) is None  # "7" is older than "10"
    assert cache.put("Job", newer) is None
    assert cache.remove("Job", newer) == key
    assert cache.jobs(key) == {}
    assert cache.put("Job", JOB) == key


def test_little_is_kept_of_a_run_at_rest() -> None:
    cache = Cache()
    meta = {"name": "run", "namespace": "team", "uid": "u", "resourceVersion": "1", "generation": 2}
    meta |= {"managedFields": ["x"], "annotations": {"a": "b"}}
    raw = {"metadata": meta, "spec": {"method": "soda"}, "status": {"state": "Succeeded", "observedGeneration": 2}}
    assert is_at_rest(raw)
    cache.put("DistillationRun", raw)
    kept = cache.runs["team", "run"]
    assert kept["spec"] == {}
    assert "managedFields" not in kept["metadata"]
    assert is_at_rest(kept)
    for change in ({"metadata": {**meta, "generation": 3}}, {"spec": {"ttlSecondsAfterFinished": 1}}):
        assert not is_at_rest({**raw, **change})


def test_the_last_progress_line_counts() -> None:
    lines = [
        '{"ts": 1.0, "event": "progress", "done": 1, "total": 10}',
        '{"ts": 2.0, "event": "progress", "done": 2, "total": null}',
        '{"ts": 3.0, "event": "other"}',
        '{"event": "progress", "done": "many"}',
        "[1]",
        "Traceback",
    ]
    found = last_progress("\n".join(lines))
    assert found is not None
    assert (found.done, found.total, found.at) == (2, None, 2.0)
    assert last_progress("") is None
