"""Servers of a run: what keeps one, and what replaces it."""

from __future__ import annotations

from dataclasses import replace

from soda_jobs.plan import ServiceCommand
from soda_operator.accept import Accepted, accept
from soda_operator.config import Config
from soda_operator.observed import Job, Observed, Pod
from soda_operator.servers import move_on
from tests.unit.operator_world import tiny_run


def test_a_server_that_has_answered_once_has_no_start_deadline() -> None:
    run = tiny_run()
    run["metadata"] |= {"uid": "uid", "generation": 1}
    accepted = accept(run, Config(start_seconds=20.0))
    assert isinstance(accepted, Accepted)
    service = ServiceCommand(name="teacher", role="teacher", argv=("serve",), image="train")
    job = Job(
        name="tiny-teacher-1", run="tiny", stage="", service="teacher", uid="1", owner="uid", created=0.0,
        completions=1, gpus=0,
    )  # fmt: skip
    pod = Pod(
        name="p", run="tiny", job=job.name, uid="2", owner="1", created=0.0, phase="Running", started=0.0,
        is_ready=True,
    )  # fmt: skip
    rows = move_on(accepted.owner, [], {"teacher": service}, Observed({job.name: job}, {"p": pod}), 10.0).rows
    busy = Observed({job.name: job}, {"p": replace(pod, is_ready=False)})
    [later] = move_on(accepted.owner, rows, {"teacher": service}, busy, 1000.0).rows
    assert (later.ready, later.attempt, later.reason) == (False, 1, "")
    [never] = move_on(accepted.owner, [], {"teacher": service}, busy, 1000.0).rows
    assert (never.attempt, never.reason) == (2, "StartDeadline")
