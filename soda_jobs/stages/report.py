"""report: everything the page of a run says, counted from the run's artifacts.

in   metrics            Metric rows of every round, each with its `iteration` (0 = the untouched student)
     questions          every question of every round
     classifications, attempts, executions, judgements    one artifact for each round
     screened, new      what the screens kept, with dropped.jsonl beside it
     history            trained checkpoints, each with history.jsonl
     tasks, answers, answer_executions    the held-out tasks and what the student made of them
     (all optional, any number of artifacts)
out  summary.json       {"method", "metrics": [{"round", "benchmark", …, "source": {"input", "index"}}], …}

There is no clock in it: equal artifacts give an equal summary. Clocks and costs join it on the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from soda_jobs.context import DROPPED, Context, StageSettings, Summary
from soda_jobs.records import read_rows
from soda_jobs.report import collect, samples
from soda_jobs.report.collect import Part, Row, Source
from soda_jobs.report.text import plain

SUMMARY: Final = "summary.json"
HISTORY: Final = "history.jsonl"


class Settings(StageSettings):
    method: str
    rounds: int
    samples: int = 6


def run(settings: Settings, context: Context) -> Summary:
    def open_(name: str) -> Iterator[Part]:
        for index, item in enumerate(context.inputs.get(name, ())):
            yield Source(input=name, index=index), read_rows(item.folder / item.file)

    measured = collect.measured(open_("metrics"))
    outcomes: dict[str, str] = {}
    executions = collect.executed(open_("executions"), outcomes=outcomes)
    metrics = collect.metrics(measured)
    summary = {
        "method": settings.method,
        "rounds_planned": settings.rounds,
        "metrics": metrics,
        "changes": collect.changes(measured),
        "answers": collect.answered(open_("attempts")),
        "difficulty": collect.difficulty(open_("classifications")),
        "executions": executions,
        "rejects": [*_rejects(context, "screened"), *_rejects(context, "new")],
        "judge": collect.agreement(open_("judgements"), outcomes),
        "training": list(_curves(context)),
        "samples": samples.by_level(open_, settings.samples),
        "held_out": samples.held_out(open_),
    }
    text = json.dumps(plain(summary), ensure_ascii=False, allow_nan=False, indent=1)
    (context.out / SUMMARY).write_text(text + "\n", encoding="utf-8")
    return Summary(counts={"metrics": len(measured)}, headline=headline(metrics))


def headline(metrics: Sequence[Row]) -> dict[str, float]:
    """The first metric over all languages, after the last measured round: {"pass@1": 0.71}."""
    if not metrics:
        return {}
    first = metrics[0]
    same = [
        row
        for row in metrics
        if all(row[name] == first[name] for name in ("benchmark", "language", "metric", "k"))
    ]
    return {str(first["metric"]): float(same[-1]["value"])}


def _rejects(context: Context, name: str) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(context.inputs.get(name, ())):
        dropped = item.folder / DROPPED
        reasons = read_rows(dropped) if dropped.exists() else iter(())
        yield collect.rejected(Source(input=name, index=index), read_rows(item.folder / item.file), reasons)


def _curves(context: Context) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(context.inputs.get("history", ())):
        path = item.folder / HISTORY
        if path.exists():
            yield collect.curve(Source(input="history", index=index), list(read_rows(path)))
