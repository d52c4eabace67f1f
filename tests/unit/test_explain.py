"""One paragraph for every state: what the run does or waits for, since when, what to do next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from soda_jobs.cli.explain import age, explain, local_resource

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def resource(state: str | None = None, *, generation: int = 1, seen: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": "demo",
        "namespace": "team",
        "generation": generation,
        "creationTimestamp": "2026-11-21T11:58:00Z",
    }
    if state is None:
        return {"metadata": metadata, "spec": {}, "status": {"observedGeneration": -1}}
    return {"metadata": metadata, "spec": {}, "status": {"observedGeneration": seen, "state": state, **status}}


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            resource(),
            "The operator has not seen the run demo yet (made 2m ago). If it stays so, check that "
            "the soda operator "
            "runs and watches the namespace team.",
        ),
        (
            resource(
                "Running",
                round="2/3",
                progress="31/57",
                startTime="2026-11-21T09:48:00Z",
                message="r2-sft running, 31/57 stages finished",
                stages=[
                    {"name": "source", "state": "done"},
                    {
                        "name": "r2-sft",
                        "state": "running",
                        "attempt": 2,
                        "done": 1200,
                        "total": 4000,
                        "startTime": "2026-11-21T11:55:00Z",
                    },
                ],
            ),
            "The run demo has been running for 2h12m: round 2/3, 31/57 stages finished. "
            "Running: r2-sft at 1,200 of 4,000 for 5m, attempt 2.",
        ),
        (
            resource(
                "Waiting",
                message="r1-sft: no node has the GPUs free; wait, add nodes, or ask for fewer GPUs in the spec",
                stages=[{"name": "r1-sft", "state": "starting", "startTime": "2026-11-21T11:20:00Z"}],
                services=[{"name": "teacher", "ready": False, "startTime": "2026-11-21T11:59:20Z"}],
            ),
            "The run demo waits: r1-sft: no node has the GPUs free; wait, add nodes, or ask for fewer GPUs in the "
            "spec. Starting: r1-sft for 40m. Not ready: server teacher for 40s.",
        ),
        (
            resource(
                "Stalled",
                message="a Secret that the run names does not exist in its namespace; make the Secret",
                conditions=[{"type": "Stalled", "status": "True", "lastTransitionTime": "2026-11-18T08:00:00Z"}],
            ),
            "The run demo is stuck for 3d4h: a Secret that the run names does not exist in its "
            "namespace; make the "
            "Secret. It goes on by itself once that is put right.",
        ),
        (
            resource(
                "Suspended",
                generation=4,
                seen=3,
                reason="Suspended",
                progress="3/9",
                message="spec.suspend is true",
            ),
            "The run demo is suspended, 3/9 stages finished: spec.suspend is true. `kubectl soda "
            "resume demo -n team` "
            "goes on with it. The operator has not acted on the last change of the spec yet.",
        ),
        (
            resource(
                "Suspended", reason="BudgetExhausted", progress="3/9", message="a limit is reached; raise it"
            ),
            "The run demo is suspended, 3/9 stages finished: a limit is reached; raise it.",
        ),
        (
            resource(
                "Failed",
                progress="3/9",
                finishTime="2026-11-21T11:00:00Z",
                message="r1-sft: it used more memory than its limit.",
                stages=[{"name": "r1-sft", "state": "failed", "message": "it used more memory than its limit"}],
            ),
            "The run demo failed 1h0m ago, 3/9 stages finished: r1-sft: it used more memory than its limit. Read "
            "`kubectl soda logs demo r1-sft -n team`, put it right, and go on with `kubectl soda "
            "retry demo -n team`.",
        ),
        (
            resource("Succeeded", score="0.48", bestRound=2, finishTime="2026-11-21T11:59:55Z"),
            "The run demo succeeded 5s ago with a score of 0.48 (best: round 2). `kubectl soda "
            "report demo -n team` "
            "fetches its report.",
        ),
        (
            resource("Cancelled", progress="3/9"),
            "The run demo was cancelled, 3/9 stages finished; what they made is kept. "
            "`kubectl soda retry demo -n team` goes on with it.",
        ),
        (
            resource("Resting", message="of a later version"),
            "The run demo is in the state Resting: of a later version.",
        ),
    ],
)
def test_each_state_is_told_in_one_paragraph(run: dict[str, Any], text: str) -> None:
    assert explain(run, NOW, command="kubectl soda", options=" -n team") == text


def test_a_run_that_is_being_deleted_says_so_whatever_its_state() -> None:
    run = resource("Running", round="1/3", progress="1/9")
    run["metadata"]["deletionTimestamp"] = "2026-11-21T11:59:00Z"
    assert explain(run, NOW).startswith("The run demo is being deleted for 1m: its pods end first")


def test_no_more_than_three_stages_are_named() -> None:
    run = resource("Running", stages=[{"name": f"s{number}", "state": "running"} for number in range(5)])
    assert "Running: s0, s1, s2, 2 more." in explain(run, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (3600, "1h0m"), (90_000, "1d1h")]
)
def test_ages_are_short(seconds: int, text: str) -> None:
    then = datetime.fromtimestamp(NOW.timestamp() - seconds, UTC)
    assert age(then.strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


def row(name: str, state: str, **more: Any) -> dict[str, Any]:
    empty = {"attempt": 0, "digest": "", "headline": {}, "reason": "", "done": 0, "total": None, "counts": {}}
    return {"name": name, "round": 1, "state": state, **empty, **more}


def test_a_run_on_this_machine_is_told_the_same_way() -> None:
    document = {
        "run": "demo",
        "state": "Running",
        "message": "",
        "updated": "2026-11-21T11:59:00+00:00",
        "stages": [
            row("source", "reused", counts={"rows": 7}),
            row("r1-evaluate", "done", headline={"pass@1": 0.25}),
            row("r1-sft", "running", attempt=1, done=3, total=9),
        ],
    }
    alive = local_resource(document, alive=True)
    assert explain(alive, NOW) == (
        "The run demo has been running: round 1/1, 2/3 stages finished. Running: r1-sft at 3 of 9."
    )
    assert alive["status"]["score"] == "0.25"
    killed = local_resource(document, alive=False)
    assert explain(killed, NOW) == (
        "The run demo was stopped 1m ago, 2/3 stages finished; what they made is kept. "
        "The same `soda run` command goes on with it."
    )
    failed = local_resource(
        {
            **document,
            "state": "Failed",
            "message": "stage r1-sft: no",
            "stages": [row("r1-sft", "failed", reason="no")],
        },
        alive=False,
    )
    assert explain(failed, NOW).endswith(
        "Read `soda logs demo r1-sft`; the same `soda run` command goes on with it."
    )
