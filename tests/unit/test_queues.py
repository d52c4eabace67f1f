"""Jobs that Kueue holds back, and a webhook that is away. The real Kueue is in tests/cluster/test_kueue.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from kubernetes.aio.client.exceptions import ApiException

from soda_jobs.spec.check import check
from soda_operator.cluster import Away, Refused, _typed
from soda_operator.faults import waiting
from soda_operator.ledger import is_misplaced
from soda_operator.observed import Job, Pod, Warned
from tests.unit.operator_world import tiny_run

JOB = Job(
    name="run-r1-sft-1", run="run", stage="r1-sft", service="", uid="1", owner="2", created=0.0, completions=1,
    gpus=0, is_suspended=True, queue="team", priority="low",
)  # fmt: skip
POD = Pod(name="pod", run="run", job=JOB.name, uid="3", owner="1", created=0.0, phase="Running")


@pytest.mark.parametrize(
    ("change", "phase", "expected"),
    [
        ({}, None, False),
        ({"queue": "other"}, None, True),
        ({"queue": None}, None, True),
        ({"priority": "high"}, None, True),
        ({"priority": None}, None, True),
        ({"queue": "other"}, "Running", False),  # it was just preempted, and its pod is still ending
        ({"queue": "other"}, "Failed", True),
    ],
)
def test_a_job_that_waits_in_the_wrong_queue(
    change: dict[str, str | None], phase: str | None, expected: bool
) -> None:
    run, problems = check(tiny_run(**{"queue": "team", "priority": "low", **change}))
    assert run is not None, problems
    pods = [replace(POD, phase=phase)] if phase else []
    assert is_misplaced(JOB, pods, run.spec) is expected
    assert not is_misplaced(replace(JOB, is_suspended=False), pods, run.spec)  # it runs where it is


def test_a_job_that_was_just_made_is_not_said_to_wait() -> None:
    assert waiting(JOB, [], [], 1.0) is None
    told = waiting(JOB, [], [Warned("Kueue", "LocalQueue team doesn't exist")], 1.0)
    assert told is not None
    assert told.reason == "QueueMissing"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (500, 'Internal error occurred: failed calling webhook "mjob.kb.io": connection refused', Refused),
        (500, "etcdserver: request timed out", Away),
        (503, 'failed calling webhook "mjob.kb.io"', Away),
    ],
)
def test_a_webhook_that_is_away_is_told(status: int, message: str, expected: type[Exception]) -> None:
    error = ApiException(status=status, reason="Internal Server Error")
    error.body = json.dumps({"reason": "InternalError", "message": message})
    error.headers = {}
    assert type(_typed(error)) is expected
