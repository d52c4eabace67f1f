"""The cells and footnotes of a `Comparison` as plain words, before any format escapes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from soda_jobs.metrics.published import Column
from soda_jobs.report import facts
from soda_jobs.report.comparison import MARKS, SIGNIFICANT, Comparing, Comparison
from soda_jobs.report.comparison_rows import Entry, Score, is_rate
from soda_jobs.report.text import visible

GAP: Final = "–"
DIGITS: Final = {"kappa": 3}


@dataclass(frozen=True)
class Cell:
    """What one cell shows; each format decides how."""

    text: str
    ci: str = ""
    marks: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """`groups` are the benchmarks over the columns, with how many columns each spans."""

    groups: tuple[tuple[str, int], ...]
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rule: int  # the row before which a line is drawn: the first published one
    foot: tuple[str, ...]


def grid(table: Comparison, *, intervals: bool = True) -> Grid:
    """The cells of the table as words; the first column is the row's name."""
    has_average = len(table.averaged) > 1
    has_ratio = table.base not in (None, table.baseline)  # over itself it does not exist
    gains = [f"Gain over {table.base}"] if table.base else []
    gains += [f"Gain ratio to {table.baseline}"] if has_ratio else []
    groups: list[tuple[str, int]] = []
    for benchmark, _ in table.columns:
        spans = groups.pop()[1] if groups and groups[-1][0] == benchmark else 0
        groups.append((benchmark, spans + 1))
    digits = _digits(table.metric)

    def cell(score: Score | None) -> Cell:
        if score is None:
            return Cell(GAP)
        low_high = [facts.number(bound, digits) for bound in score.ci or ()]
        ci = f"[{low_high[0]}, {low_high[1]}]" if intervals and low_high else ""
        return Cell(facts.number(score.value, digits), ci, score.marks, score.best)

    def row(entry: Entry) -> tuple[Cell, ...]:
        cells = [Cell(visible(entry.name)), *(cell(entry.scores.get(column)) for column in table.columns)]
        cells += [cell(entry.average)] if has_average else []
        found = [entry.relative_gain, entry.gain_ratio][: len(gains)]
        return (*cells, *(Cell(GAP if value is None else f"{value:+.1f} %") for value in found))

    own = [entry for entry in table.entries if not entry.is_published]
    return Grid(
        groups=tuple(groups),
        head=(
            "",
            *(facts.language(language) for _, language in table.columns),
            *(["Avg."] if has_average else []),
            *gains,
        ),
        rows=tuple(map(row, table.entries)),
        rule=len(own),
        foot=tuple(map(visible, _foot(table, intervals and bool(own), has_average))),
    )


def _foot(table: Comparison, intervals: bool, has_average: bool) -> list[str]:
    first = f"{table.metric.replace('_', ' ')}, {table.unit}"
    first += " [bootstrap 95 % interval over tasks]" if intervals else ""
    first += f". Avg.: mean of {len(table.averaged)} cells." if has_average else "."
    lines = [first]
    if table.base:
        lines.append(f"Gain over {table.base}: relative gain of the average, 100 (a - b) / b.")
    if table.base not in (None, table.baseline):
        lines.append(
            f"Gain ratio: 100 (g / g' - 1), g the row's gain over {table.base}, "
            f"g' that of {table.baseline}; it is not the gain over {table.baseline}."
        )
    if table.tests:
        lines.append(
            f"Tests against {table.baseline}, two-sided: the difference to it [bootstrap 95 %], pairs, p. "
            f"{MARKS['problems']} differs over problems, {MARKS['cells']} over cells, p < {SIGNIFICANT} after "
            f"Holm's correction over the {facts.plural(len(table.tests), 'test')} of this table."
        )
    words = [sentence(test, _digits(table.metric)) for test in table.tests]
    return [*lines, *words, *table.notes]


def sentence(test: Comparing, digits: int) -> str:
    """`b, mbpp Python: +9.1 [4.3, 13.9]; 15 of 164 problems differ; McNemar, exact: p = 0.003, Holm = 0.1.`"""
    where = column_name(test.column) if test.column else f"all {test.scope}"
    interval = f" [{test.ci[0]:.{digits}f}, {test.ci[1]:.{digits}f}]" if test.ci else ""
    left = f" ({test.left_out} not in both)" if test.left_out else ""
    return (
        f"{test.row}, {where}: {test.difference:+.{digits}f}{interval}; "
        f"{test.result.n} of {test.pairs} {test.scope}{left} differ; "
        f"{test.result.name}: p {_p(test.result.p)}, Holm {_p(test.p_holm)}."
    )


def _digits(metric: str) -> int:
    return 1 if is_rate(metric) else DIGITS.get(metric, 2)


def column_name(column: Column) -> str:
    return f"{column[0]} {facts.language(column[1])}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
