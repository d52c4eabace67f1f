"""A `Comparison` as text: for the terminal, Markdown, LaTeX, HTML or JSON. Pure.

`comparison_grid` makes plain cells first; every format here only escapes and joins them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from soda_jobs.metrics.published import Column
from soda_jobs.report.comparison import MARKS, Comparison
from soda_jobs.report.comparison_grid import Cell, Grid, grid
from soda_jobs.report.comparison_rows import Score
from soda_jobs.report.text import plain

_LATEX: Final = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "†": r"$^{\dagger}$",
    "–": "--",
    "…": r"\dots{}",
}


# -- formats ---------------------------------------------------------------------------------------


def terminal(shown: Grid) -> str:
    """Aligned columns; nothing bold, so that it can be pasted anywhere."""
    names = [name for name, spans in shown.groups for name in (name, *[""] * (spans - 1))]
    top = ["", *names, *[""] * (len(shown.head) - 1 - len(names))]
    body = [[f"{cell.text}{cell.marks} {cell.ci}".rstrip() for cell in row] for row in shown.rows]
    lines = [top, list(shown.head), *body]
    widths = [max(len(line[place]) for line in lines) for place in range(len(shown.head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if 0 < shown.rule < len(body):
        text.insert(2 + shown.rule, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*(line.rstrip() for line in text), "", *shown.foot])


def markdown(shown: Grid) -> str:
    """A pipe table, best values bold, the footnotes as a list."""
    names = [name for name, spans in shown.groups for name in [name] * spans]
    head = [f"{name} {word}".strip() for name, word in zip(_padded(["", *names], shown), shown.head, strict=True)]

    def cell(item: Cell) -> str:
        text = f"**{_md(item.text)}**" if item.best else _md(item.text)
        return f"{text}{_md(item.marks)} {_md(item.ci)}".rstrip()

    lines = [
        "| " + " | ".join(map(_md, head)) + " |",
        "|---|" + "---:|" * (len(head) - 1),
        *("| " + " | ".join(map(cell, row)) + " |" for row in shown.rows),
    ]
    return "\n".join([*lines, "", *(f"- {_md(line)}" for line in shown.foot)])


def latex(shown: Grid) -> str:
    """A tabular for the package booktabs, with the footnotes below it."""

    def cell(item: Cell) -> str:
        text = rf"\textbf{{{_tex(item.text)}}}" if item.best else _tex(item.text)
        marks = "".join("$^{*}$" if mark == MARKS["problems"] else _tex(mark) for mark in item.marks)
        return text + marks + (rf" {{\scriptsize {_tex(item.ci)}}}" if item.ci else "")

    tops = [rf"\multicolumn{{{spans}}}{{c}}{{{_tex(name)}}}" for name, spans in shown.groups]
    spare = len(shown.head) - 1 - sum(spans for _, spans in shown.groups)
    rows = [" & ".join(map(cell, row)) + r" \\" for row in shown.rows]
    if 0 < shown.rule < len(rows):
        rows.insert(shown.rule, r"\midrule")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * (len(shown.head) - 1)}}}",
            r"\toprule",
            " & ".join(["", *tops, *[""] * spare]) + r" \\",
            " & ".join(map(_tex, shown.head)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"{\footnotesize\raggedright",
            *(_tex(line) + r"\par" for line in shown.foot),
            "}",
        ]
    )


def html(shown: Grid) -> str:
    """One page that needs nothing else: no script, no request."""

    def cell(item: Cell) -> str:
        text = f"<b>{escape(item.text)}</b>" if item.best else escape(item.text)
        marks = f"<sup>{escape(item.marks)}</sup>" if item.marks else ""
        return f"<td>{text}{marks}" + (f"<small>{escape(item.ci)}</small>" if item.ci else "") + "</td>"

    tops = "".join(f'<th scope="colgroup" colspan="{spans}">{escape(name)}</th>' for name, spans in shown.groups)
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in shown.head)
    spare = len(shown.head) - 1 - sum(spans for _, spans in shown.groups)
    rows = [
        f'<tr{" class=rule" * (0 < place == shown.rule)}><th scope="row">{escape(row[0].text)}</th>'
        f"{''.join(map(cell, row[1:]))}</tr>"
        for place, row in enumerate(shown.rows)
    ]
    style = (
        "body{font:15px/1.4 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
        "td,th{padding:.3rem .7rem;text-align:right}th[scope=row]{text-align:left;font-weight:400}"
        "td,th[scope=row]{white-space:nowrap}"
        "th[scope=colgroup]{text-align:center}small{display:block;color:#555}thead{border-bottom:1px solid}"
        ".rule{border-top:1px solid}li{margin:.15rem 0}"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f"<title>Runs compared</title><style>{style}</style></head><body><table><thead>",
            f"<tr><td></td>{tops}{'<td></td>' * spare}</tr>",
            f"<tr>{head}</tr></thead><tbody>",
            *rows,
            "</tbody></table><ul>",
            *(f"<li>{escape(line)}</li>" for line in shown.foot),
            "</ul></body></html>",
        ]
    )


def _padded(words: Sequence[str], shown: Grid) -> list[str]:
    return [*words, *[""] * (len(shown.head) - len(words))]


def _md(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)


# -- for machines ----------------------------------------------------------------------------------


def document(table: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON values; a column is {"benchmark", "language"}."""

    def column(item: Column) -> dict[str, str]:
        return {"benchmark": item[0], "language": item[1]}

    def score(item: Score) -> dict[str, Any]:
        return {"value": item.value, "ci": item.ci, "tasks": len(item.tasks), "marks": item.marks}

    return dict(
        plain(
            {
                "metric": table.metric,
                "unit": table.unit,
                "baseline": table.baseline,
                "base": table.base,
                "columns": [column(item) for item in table.columns],
                "averaged": [column(item) for item in table.averaged],
                "rows": [
                    {
                        "name": entry.name,
                        "published": entry.is_published,
                        "cells": [
                            {**column(item), **(score(found) or {})} for item, found in entry.scores.items()
                        ],
                        "average": entry.average and score(entry.average),
                        "relative_gain": entry.relative_gain,
                        "gain_ratio": entry.gain_ratio,
                    }
                    for entry in table.entries
                ],
                "tests": [
                    {
                        "row": test.row,
                        "column": test.column and column(test.column),
                        "over": test.scope,
                        "test": test.result.name,
                        "pairs": test.pairs,
                        "left_out": test.left_out,
                        "difference": test.difference,
                        "ci": test.ci,
                        "n": test.result.n,
                        "statistic": test.result.statistic,
                        "p": test.result.p,
                        "p_holm": test.p_holm,
                        "significant": test.is_significant,
                    }
                    for test in table.tests
                ],
                "notes": list(table.notes),
            }
        )
    )


WRITERS: Final[Mapping[str, Callable[[Grid], str]]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
    "html": html,
}
FORMATS: Final = (*WRITERS, "json")


def render(table: Comparison, output: str, *, intervals: bool = True) -> str:
    """The table in one of `FORMATS`."""
    if output == "json":
        return json.dumps(document(table), ensure_ascii=False, allow_nan=False, indent=1)
    return WRITERS[output](grid(table, intervals=intervals))
