"""Jobs that Kueue holds back, and a webhook that is away. The real Kueue is in tests/cluster/test_kueue.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from kubernetes.aio.client.exceptions import ApiException

from soda_jobs.plan import Finished, command
from soda_jobs.spec.check import check
from soda_operator import queues
from soda_operator.accept import Accepted, accept
from soda_operator.cluster import Away, Refused, _typed
from soda_operator.config import Config
from soda_operator.faults import waiting
from soda_operator.ledger import is_misplaced
from soda_operator.observed import Job, Observed, Pod, Warned
from soda_operator.status import StageStatus
from tests.unit.operator_world import tiny_run

# Two stages of one run, each with a server of its own that is ready.
STAGES = ("r1-correct", "r0-tutor-heldout-answer")
SERVERS = ("teacher", "student-student")
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


def seen(queued: Sequence[str] = STAGES, ready: Sequence[str] = SERVERS, created: float = 0.0) -> Observed:
    """Jobs named after their stage or server; those that are ready have a pod that answers."""
    jobs = {name: replace(JOB, name=name, stage=name, created=created) for name in STAGES}
    jobs |= {name: replace(JOB, name=name, stage="", service=name, created=created) for name in SERVERS}
    jobs = {name: job if name in queued else replace(job, is_suspended=False) for name, job in jobs.items()}
    pods = {name: replace(POD, name=name, job=name, is_ready=name in ready) for name in jobs if name not in queued}
    return Observed(jobs, pods)


def alone(observed: Observed, now: float = 100.0, **states: str) -> str | None:
    run = tiny_run(queue="team")
    run["metadata"] |= {"uid": "2", "generation": 1}
    accepted = accept(run, Config())
    assert isinstance(accepted, Accepted)
    finished = {stage.name: Finished("k" * 64, "d" * 64) for stage in accepted.graph}
    commands = [command(accepted.owner.run, accepted.graph.stage(name), finished) for name in STAGES]
    rows = {item.stage: StageStatus(name=item.stage, state="starting") for item in commands}
    for name, state in states.items():
        rows[name.replace("_", "-")].state = state  # type: ignore[assignment]
    found = queues.alone(accepted.owner, commands, rows, observed, now)
    return found and found.stage


def test_a_run_that_holds_itself_up_goes_one_stage_at_a_time() -> None:
    assert alone(seen()) == "r1-correct"
    assert alone(seen(), r1_correct="waiting") == "r0-tutor-heldout-answer"  # whose Job is in the queue already


@pytest.mark.parametrize(
    "observed",
    [
        seen(queued=()),  # nothing waits
        seen(queued=("r1-correct",)),  # another stage runs, and frees its server in the end
        seen(ready=("teacher",)),  # a server is on its way
        seen(created=50.0),  # not for long
        seen(queued=(*STAGES, "student-student"), ready=("teacher",)),  # the first needs all there is
        seen(queued=(*STAGES, *SERVERS), ready=()),  # nobody of the run holds anything
    ],
)
def test_a_run_that_others_hold_up_keeps_its_servers(observed: Observed) -> None:
    assert alone(observed) is None
