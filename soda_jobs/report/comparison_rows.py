"""The rows of a comparison: what one run measured after one round, or what a paper reports. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from soda_jobs.metrics.published import Column, Table
from soda_jobs.report.collect import ALL, Row

PERCENT: Final = "percent"
UNITS: Final = {"model_score": "points from 0 to 6", "edit_similarity": PERCENT, "codebleu": PERCENT}
_ELSEWHERE: Final = ("bootstrap_samples", "seed", "average")  # settings that do not change a mean
Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """A cell: value and interval in the table's unit; `tasks` is {task: score as measured}, empty if unknown."""

    value: float
    ci: Interval | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    marks: str = ""
    best: bool = False


@dataclass(frozen=True)
class Entry:
    """A row of the table. `settings` are those of its evaluation that must be equal for a fair comparison."""

    name: str
    scores: Mapping[Column, Score]
    settings: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: tuple[int, int] = (1000, 0)  # samples, seed
    is_published: bool = False
    average: Score | None = None
    relative_gain: float | None = None
    gain_ratio: float | None = None


def is_rate(metric: str) -> bool:
    """Whether it is pass@k, which is measured in [0, 1] and shown in percent; all else is shown as it is."""
    return re.fullmatch(r"pass@\d+", metric) is not None


def scale(metric: str) -> float:
    return 100.0 if is_rate(metric) else 1.0


def unit(metric: str) -> str:
    return PERCENT if is_rate(metric) else UNITS.get(metric, "as measured")


def measured(name: str, rows: Iterable[Row], metric: str) -> Entry | None:
    """The row of one run after one round; None when it did not measure this metric."""
    times = scale(metric)
    found = [row for row in rows if row["metric"] == metric and row["language"] != ALL]
    scores: dict[Column, Score] = {}
    for row in found:
        ci = (row["ci"][0] * times, row["ci"][1] * times)
        score = Score(value=row["value"] * times, ci=ci, tasks=row.get("per_task", {}))
        scores.setdefault((row["benchmark"], row["language"]), score)
    if not scores:
        return None
    settings = dict(found[0].get("settings", {}))
    return Entry(
        name,
        scores,
        settings={key: value for key, value in settings.items() if key not in _ELSEWHERE},
        bootstrap=(int(settings.get("bootstrap_samples", 1000)), int(settings.get("seed", 0))),
    )


def published(table: Table, metric: str, *, suffix: str = "") -> list[Entry]:
    """The rows of a published table that have this metric; `suffix` goes behind their names."""
    return [
        Entry(
            row + suffix,
            {column: Score(value) for column, value in table.values(row, metric).items()},
            is_published=True,
        )
        for row in table.rows
        if table.values(row, metric)
    ]
