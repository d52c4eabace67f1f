"""The parts of a status that people and tools read, from the rows of stages and servers.

One place computes state, conditions, columns and scores together, so they cannot contradict each other. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from soda_jobs.graph import Graph, Kind
from soda_operator.faults import Fault
from soda_operator.ledger import ACTIVE, FINISHED
from soda_operator.observed import stamp
from soda_operator.status import MESSAGE_MAX, Condition, RoundStatus, RunStatus, StageStatus, State

TERMINAL: Final = ("Succeeded", "Failed", "Cancelled")
MAIN_METRIC: Final = "pass@1"


def columns(status: RunStatus, graph: Graph) -> None:
    """Fill in round, stage, progress, score, rounds and best round."""
    rows = status.stages
    status.progress = f"{sum(row.state in FINISHED for row in rows)}/{len(rows)}"
    rounds = {stage.name: stage.round for stage in graph}
    active = [row.name for row in rows if row.state in ACTIVE]
    failed = [row.name for row in rows if row.state == "failed"]
    now_at = next(iter([*failed, *active]), "")
    status.stage = now_at
    reached = [rounds[row.name] for row in rows if row.name in rounds and row.state != "waiting"]
    status.round = f"{max(reached, default=0)}/{graph.rounds}"
    status.rounds = scores(rows, graph)
    measured = [(item.scores[MAIN_METRIC], -item.round) for item in status.rounds if MAIN_METRIC in item.scores]
    status.best_round = -max(measured)[1] if measured else None
    last = next((item for item in reversed(status.rounds) if MAIN_METRIC in item.scores), None)
    status.score = f"{last.scores[MAIN_METRIC]:.2f}" if last else ""


def scores(rows: Sequence[StageStatus], graph: Graph) -> list[RoundStatus]:
    """The mean of each metric over the benchmarks of a round."""
    kinds = {stage.name: (stage.kind, stage.round) for stage in graph}
    found: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        kind, number = kinds.get(row.name, (None, 0))
        if kind is Kind.EVALUATE and row.state in FINISHED:
            for metric, value in row.headline.items():
                found.setdefault(number, {}).setdefault(metric, []).append(value)
    return [
        RoundStatus(round=number, scores={metric: sum(each) / len(each) for metric, each in metrics.items()})
        for number, metrics in sorted(found.items())
    ]


def decide(status: RunStatus, blocked: Mapping[str, Fault]) -> None:
    """State, reason and message of a run that is neither suspended nor over. `blocked` are its servers'."""
    running = [row for row in status.stages if row.state == "running"]
    is_moving = bool(running) or any(row.state == "starting" and not row.reason for row in status.stages)
    waits = [row for row in status.stages if row.reason and row.state in ("starting", "waiting")]
    reasons = [(row.reason, row.message) for row in waits]
    reasons += [(item.reason, item.message) for item in blocked.values()]
    stuck = next(((reason, text) for reason, text in reasons if Fault(reason, "").kind == "block"), None)
    if stuck is not None and not is_moving:
        _set(status, "Stalled", *stuck)
    elif reasons and not is_moving:
        _set(status, "Waiting", *reasons[0])
    elif running:
        names = ", ".join(row.name for row in running[:3])
        _set(status, "Running", "StagesRunning", f"{names} running, {status.progress} stages finished")
        if stuck is not None:
            status.message = f"{status.message}; {stuck[1]}"[:MESSAGE_MAX]
    else:
        first = not any(row.state in FINISHED for row in status.stages)
        _set(status, "Pending" if first else "Running", "Starting", f"{_coming(status)} is being started")


def _coming(status: RunStatus) -> str:
    servers = [item.name for item in status.services if not item.ready]
    active = [row.name for row in status.stages if row.state in ACTIVE]
    return ", ".join([*(f"server {name}" for name in servers), *active][:3]) or "the next stage"


def end(status: RunStatus, state: State, reason: str, message: str, now: float) -> None:
    """The last state a run has."""
    _set(status, state, reason, message)
    status.finish_time = stamp(now)


def stop(status: RunStatus, why: Fault, state: State) -> None:
    _set(status, state, why.reason, why.message)


def _set(status: RunStatus, state: State, reason: str, message: str) -> None:
    status.state, status.reason, status.message = state, reason, message[:MESSAGE_MAX]


def conditions(status: RunStatus, generation: int, now: float) -> None:
    """Fill in the conditions; the time of one changes only with its status."""
    status.observed_generation = generation
    before = {item.type: item for item in status.conditions}
    state, reason, message = status.state, status.reason or status.state, status.message
    refused = state == "Stalled" and reason in ("InvalidSpec", "StorageMissing")
    is_over, is_stalled = state in TERMINAL, state in ("Stalled", "Failed", "Cancelled")
    wanted = {
        "Accepted": (
            "False" if refused else "True",
            reason if refused else "Accepted",
            message if refused else "",
        ),
        "Reconciling": ("True", reason, message) if state == "Pending" else ("False", state, ""),
        "Stalled": ("True", reason, message) if is_stalled else ("False", state, ""),
        "Suspended": ("True", reason, message) if state == "Suspended" else ("False", state, ""),
        "Succeeded": (
            {"Succeeded": "True", "Failed": "False", "Cancelled": "False"}.get(state, "Unknown"),
            reason if is_over else state,
            message,
        ),
    }
    status.conditions = []
    for kind, (value, why, text) in wanted.items():
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == value else stamp(now)
        status.conditions.append(
            Condition.model_validate(
                {
                    "type": kind,
                    "status": value,
                    "reason": why,
                    "message": text,
                    "last_transition_time": since,
                    "observed_generation": generation,
                }
            )
        )
