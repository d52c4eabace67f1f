"""Several runs in one table, as the papers print them: a row for a run, a column for a benchmark and language.

In: for each row its metric rows of one round (with `per_task` where the artifacts are at hand), or a published
table's numbers. Out: `Comparison`, which `comparison_output` writes for the terminal, Markdown, LaTeX, HTML or
JSON. Pure. What is tested against the baseline row:

    each column      task by task over the shared tasks: McNemar where a task is solved or not, else Wilcoxon
    the average      the same over the tasks of all columns, and Wilcoxon over the columns' means (the cells)

The p-values of one table are corrected together (Holm). docs/statistics.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final, Literal

from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.metrics.published import Column
from soda_jobs.metrics.statistics import TestResult, compare_pairs, gain_ratio, holm, relative_gain, wilcoxon
from soda_jobs.report.comparison_rows import Entry, Interval, Score, scale, unit

SIGNIFICANT: Final = 0.05
MARKS: Final = {"problems": "*", "cells": "†"}
FEWEST_CELLS: Final = 6  # with 5 pairs the smallest two-sided p of a signed-rank test is 2 / 2^5 = 0.0625


@dataclass(frozen=True)
class Comparing:
    """One test of a row against the baseline; `column` None means over all columns. `p_holm` is corrected.

    `difference` is row minus baseline over the same pairs, in the table's unit, every column weighing the same;
    `ci` is its bootstrap interval over tasks, None over cells.
    """

    row: str
    column: Column | None
    scope: Literal["problems", "cells"]
    pairs: int
    left_out: int  # tasks that only one of the two has
    result: TestResult
    difference: float
    ci: Interval | None = None
    p_holm: float = 1.0

    @property
    def is_significant(self) -> bool:
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """The whole table, ready to be written. `averaged` are the columns that every measured row has."""

    metric: str
    unit: str
    columns: tuple[Column, ...]
    averaged: tuple[Column, ...]
    entries: tuple[Entry, ...]
    tests: tuple[Comparing, ...]
    baseline: str
    base: str | None
    notes: tuple[str, ...]


# -- the table -------------------------------------------------------------------------------------


def compare(
    entries: Sequence[Entry],
    metric: str,
    *,
    baseline: str,
    base: str | None = None,
    unit_: str | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """The table of these rows in their order; every row is tested against the row named `baseline`.

    `base` names the row over which gains are counted, the untouched student. Both must be among the rows. `unit_`
    says the unit of a metric that only a published table has.
    """
    columns = tuple(dict.fromkeys(column for entry in entries for column in entry.scores))
    common = [entry for entry in entries if not entry.is_published] or list(entries)
    averaged = tuple(column for column in columns if all(column in entry.scores for entry in common))
    times = scale(metric)
    rows = [replace(entry, average=_average(entry, averaged, times)) for entry in entries]
    by_name = {entry.name: entry for entry in rows}
    tests = _corrected([test for entry in rows for test in _tests(entry, by_name[baseline], averaged, times)])
    rows = [_with_gains(entry, by_name[baseline], by_name[base]) for entry in rows] if base else rows
    rows = [_marked(entry, [test for test in tests if test.row == entry.name]) for entry in rows]
    return Comparison(
        metric=metric,
        unit=unit_ or unit(metric),
        columns=columns,
        averaged=averaged,
        entries=tuple(_with_best(rows, columns)),
        tests=tuple(tests),
        baseline=baseline,
        base=base,
        notes=(*_notes(rows, columns, averaged, by_name[base] if base else None), *notes),
    )


def _average(entry: Entry, columns: Sequence[Column], times: float) -> Score | None:
    """Every column weighs the same, as in the papers' averages; None where the row lacks one of them."""
    if not columns or not all(column in entry.scores for column in columns):
        return None
    scores = [entry.scores[column] for column in columns]
    groups = [[value * times for value in score.tasks.values()] for score in scores]
    samples, seed = entry.bootstrap
    ci = confidence_interval(groups, samples=samples, seed=seed) if all(groups) else None
    return Score(fmean(score.value for score in scores), ci)


def _with_gains(entry: Entry, baseline: Entry, base: Entry) -> Entry:
    if not (entry.average and baseline.average and base.average) or base.average.value == 0:
        return entry
    gain = relative_gain(entry.average.value, base.average.value)
    if baseline.average.value == base.average.value or entry.name == base.name:
        return replace(entry, relative_gain=gain)
    ratio = gain_ratio(entry.average.value, baseline.average.value, base.average.value)
    return replace(entry, relative_gain=gain, gain_ratio=ratio)


def _with_best(entries: Sequence[Entry], columns: Sequence[Column]) -> list[Entry]:
    """The highest measured value of each column, and of the average, is marked as the best."""
    own = [entry for entry in entries if not entry.is_published]
    top = {
        column: _top([entry.scores[column].value for entry in own if column in entry.scores]) for column in columns
    }
    top_average = _top([entry.average.value for entry in own if entry.average])
    found = []
    for entry in entries:
        if entry.is_published:
            found.append(entry)
            continue
        scores = {
            column: replace(score, best=score.value == top[column]) for column, score in entry.scores.items()
        }
        average = entry.average and replace(entry.average, best=entry.average.value == top_average)
        found.append(replace(entry, scores=scores, average=average))
    return found


def _top(values: Sequence[float]) -> float | None:
    """The highest of them, None when they are all equal: then none is the best."""
    return max(values) if len(set(values)) > 1 else None


# -- tests -----------------------------------------------------------------------------------------


def _tests(entry: Entry, baseline: Entry, averaged: Sequence[Column], times: float) -> list[Comparing]:
    """All comparisons of one row with the baseline that its data allow."""
    if entry.name == baseline.name:
        return []
    shared = [column for column in entry.scores if column in baseline.scores]
    paired = {column: _pairs(entry.scores[column], baseline.scores[column]) for column in shared}
    told = [column for column in shared if paired[column]]
    tests = [_over_problems(entry, baseline, [column], paired, times) for column in told]
    pooled = [column for column in told if column in averaged]
    if len(told) > 1 and pooled:
        tests.append(replace(_over_problems(entry, baseline, pooled, paired, times), column=None))
    if len(shared) >= FEWEST_CELLS:
        ours, theirs = ([row.scores[column].value for column in shared] for row in (entry, baseline))
        difference = fmean(ours) - fmean(theirs)
        tests.append(Comparing(entry.name, None, "cells", len(shared), 0, wilcoxon(ours, theirs), difference))
    return tests


def _pairs(first: Score, second: Score) -> list[tuple[float, float]]:
    """The scores of the tasks that both have."""
    return [(first.tasks[task], second.tasks[task]) for task in first.tasks if task in second.tasks]


def _over_problems(
    entry: Entry,
    baseline: Entry,
    columns: Sequence[Column],
    paired: Mapping[Column, Sequence[tuple[float, float]]],
    times: float,
) -> Comparing:
    """The test of all tasks of these columns, under the first column's name."""
    pairs = [pair for column in columns for pair in paired[column]]
    known = sum(len({*entry.scores[name].tasks, *baseline.scores[name].tasks}) for name in columns)
    groups = [[times * (ours - theirs) for ours, theirs in paired[column]] for column in columns]
    samples, seed = entry.bootstrap
    return Comparing(
        row=entry.name,
        column=columns[0],
        scope="problems",
        pairs=len(pairs),
        left_out=known - len(pairs),
        result=compare_pairs([ours for ours, _ in pairs], [theirs for _, theirs in pairs]),
        difference=fmean(map(fmean, groups)),
        ci=confidence_interval(groups, samples=samples, seed=seed),
    )


def _corrected(tests: Sequence[Comparing]) -> list[Comparing]:
    values = holm([test.result.p for test in tests])
    return [replace(test, p_holm=value) for test, value in zip(tests, values, strict=True)]


def _marked(entry: Entry, tests: Sequence[Comparing]) -> Entry:
    def marks(column: Column | None) -> str:
        return "".join(MARKS[test.scope] for test in tests if test.column == column and test.is_significant)

    scores = {column: replace(score, marks=marks(column)) for column, score in entry.scores.items()}
    return replace(entry, scores=scores, average=entry.average and replace(entry.average, marks=marks(None)))


# -- what a reader must know -----------------------------------------------------------------------


def _notes(
    entries: Sequence[Entry], columns: Sequence[Column], averaged: Sequence[Column], base: Entry | None
) -> list[str]:
    notes = []
    own = [entry for entry in entries if not entry.is_published]
    if own and len(averaged) < len({column for entry in own for column in entry.scores}):
        notes.append(f"The average is over the {len(averaged)} columns that every run has.")
    if any(entry.is_published and entry.average for entry in entries):
        notes.append("Averages of published rows are computed here from their cells.")
    blind = [entry.name for entry in own if not any(score.tasks for score in entry.scores.values())]
    if blind:
        notes.append(
            f"Not tested task by task, as the store with the evaluations was not found: {', '.join(blind)}; "
            "--store names it."
        )
    if base and base.average and base.average.value == 0:
        notes.append(f"Gains over {base.name} are not defined, because its average is 0.")
    if len(columns) < FEWEST_CELLS and len(entries) > 1:
        notes.append(f"With fewer than {FEWEST_CELLS} cells a signed-rank test over cells cannot reach 0.05.")
    for key in sorted({key for entry in own for key in entry.settings}):
        values = {entry.name: entry.settings.get(key) for entry in own if entry.settings}
        if len({repr(value) for value in values.values()}) > 1:
            told = ", ".join(f"{name} {value}" for name, value in values.items())
            notes.append(f"The evaluations differ in {key}: {told}.")
    return notes
