"""The report of a run as one HTML page and one JSON document.

In: the summary that the report stage wrote, and `RunFacts`. Out: a self-contained page (no request leaves it, no
script in it) and the same facts for machines. Every number on the page links to the artifact it came from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from soda_jobs.report import facts, lineage, plots, published
from soda_jobs.report.collect import ALL, Row
from soda_jobs.report.facts import RunFacts, StageFact
from soda_jobs.report.text import plain, visible

HERE: Final = Path(__file__).parent
RUBRIC: Final = ("functionality", "boundaries", "requirements", "readability", "practices")  # rules 1 to 5
LEVELS: Final = ("easy", "medium", "hard", "excluded")
ANCHOR: Final = "stage-"
STATUSES: Final = ("pass", "fail", "timeout", "env_error", "unsupported")
SCALES: Final = {"model_score": 6.0}  # every other metric lies in [0, 1]


def render(summary: Mapping[str, Any], *, run: RunFacts) -> tuple[str, dict[str, Any]]:
    """The page and the document; both hold only text that encodes to UTF-8, whatever a model wrote."""
    page = _template().render(
        run=run,
        summary=summary,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        result=facts.result(summary),
        rounds=sorted({row["round"] for row in summary["metrics"]}),
        panels=_panels(summary),
        tables=_tables(summary, run),
        difficulty=_bars(summary["difficulty"], "levels", LEVELS, run),
        executions=_executions(summary, run),
        rejections=facts.rejections(summary, run),
        judge=[
            {**item, "words": facts.judge_words(item), "stage": run.source(item["source"])}
            for item in summary["judge"]
        ],
        curves=_curves(summary, run),
        graph=lineage.draw(run.stages, anchor=ANCHOR),
        paper=published.source(),
        costs=facts.costs(run.stages),
        per_sample=facts.per_sample(summary, run.stages),
        total=sum(stage.seconds for stage in run.stages),
        longest=max((stage.seconds for stage in run.stages), default=0.0) or 1.0,
    )
    return page, plain(_document(summary, run))


def _document(summary: Mapping[str, Any], run: RunFacts) -> dict[str, Any]:
    rounds: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in summary["metrics"]:
        stage = run.source(row["source"])
        rounds[row["round"]].append({**row, "digest": stage.digest if stage else None})
    return {
        "run": run.run,
        "method": run.method,
        "result": facts.result(summary),
        "rounds": [{"round": round_, "metrics": rounds[round_]} for round_ in sorted(rounds)],
        "stages": [_stage(stage) for stage in run.stages],
        "started": run.started,
        "finished": run.finished,
        "versions": run.versions,
        "spec": run.spec_yaml,
        "costs": facts.costs(run.stages),
        **{name: value for name, value in summary.items() if name not in ("method", "metrics")},
    }


def _stage(stage: StageFact) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in StageFact.__dataclass_fields__}


# -- scores ----------------------------------------------------------------------------------------


def _cells(summary: Row) -> list[list[Row]]:
    """Metric rows grouped by what is compared between rounds, in order."""
    cells: list[list[Row]] = []
    for row in summary["metrics"]:
        if not cells or not facts.same_cell(row, cells[-1][0]):
            cells.append([])
        cells[-1].append(row)
    return cells


def _panels(summary: Row) -> list[dict[str, Any]]:
    """The score plots: the run's first metric over all languages large, then each language and benchmark."""
    first = {(cell[0]["benchmark"]): (cell[0]["metric"], cell[0]["k"]) for cell in reversed(_cells(summary))}
    shown = [cell for cell in _cells(summary) if (cell[0]["metric"], cell[0]["k"]) == first[cell[0]["benchmark"]]]
    several = len(first) > 1
    return [
        {
            "title": f"{cell[0]['benchmark']}, " * several + facts.language(cell[0]["language"]),
            "n": cell[0]["n"],
            "metric": facts.metric(cell[0]),
            "svg": _score_plot(cell, summary["rounds_planned"], plots.SMALL if place else plots.LARGE),
        }
        for place, cell in enumerate(shown)
    ]


def _score_plot(cell: Sequence[Row], rounds: int, box: plots.Box) -> Markup:
    name = f"{facts.metric(cell[0])} of {facts.language(cell[0]['language'])} by round"
    values = "; ".join(
        f"round {row['round']}: {facts.number(row['value'])}, {facts.interval(row)}" for row in cell
    )
    points = [(row["round"], row["value"], *row["ci"]) for row in cell]
    top = SCALES.get(cell[0]["metric"], 1.0)
    return plots.scores(points, rounds=max(rounds, cell[-1]["round"]), top=top, alt=f"{name}. {values}.", box=box)


def _tables(summary: Row, run: RunFacts) -> list[dict[str, Any]]:
    """One table per benchmark: a row per metric and language, a cell per round with value, interval and stage."""
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in _cells(summary):
        rounds = {row["round"]: {**row, "stage": run.source(row["source"])} for row in cell}
        change = next((item for item in summary["changes"] if facts.same_cell(item, cell[0])), None)
        paper = published.paper(cell[0], run.method)
        tables[cell[0]["benchmark"]].append({**cell[0], "rounds": rounds, "change": change, "paper": paper})
    return [
        {
            "benchmark": benchmark,
            "rows": rows,
            "paper": any(row["paper"] for row in rows),
            "rounds": sorted({round_ for row in rows for round_ in row["rounds"]}),
            "sources": {round_: cell["stage"] for row in rows for round_, cell in row["rounds"].items()},
        }
        for benchmark, rows in tables.items()
    ]


# -- counts ----------------------------------------------------------------------------------------


def _bars(items: Sequence[Row], counts: str, names: Sequence[str], run: RunFacts) -> list[dict[str, Any]]:
    """Stacked bars: for each item the share of every name that occurs, in the given order."""
    rows = []
    for item in items:
        stage = run.source(item["source"])
        total = sum(item[counts].values())
        known = [name for name in names if item[counts].get(name)]
        others = [name for name in item[counts] if name not in names]
        segments = [
            {"name": name, "count": item[counts][name], "share": 100 * item[counts][name] / total}
            for name in (*known, *others)
        ]
        round_ = item["round"] if item["round"] is not None else stage.round if stage else "?"
        rows.append({**item, "round": round_, "stage": stage, "total": total, "segments": segments})
    return rows


def _executions(summary: Row, run: RunFacts) -> list[dict[str, Any]]:
    """Rows of the program table, those of one round together; error classes as sorted pairs without `pass`."""
    rows = _bars(summary["executions"], "status", STATUSES, run)
    return [{**row, "errors": [item for item in row["verdict"].items() if item[0] != "pass"]} for row in rows]


def _curves(summary: Row, run: RunFacts) -> list[dict[str, Any]]:
    curves = []
    for item in summary["training"]:
        stage, points = run.source(item["source"]), item["series"].get("loss", [])
        if not points:
            continue
        name = stage.name if stage else f"training {item['source']['index'] + 1}"
        ends = {key: values[-1][1] for key, values in item["series"].items() if values and key != "learning_rate"}
        alt = f"Loss of {name}: {points[0][1]:.3g} at first, {points[-1][1]:.3g} after {item['steps']} steps."
        curves.append({"name": name, "stage": stage, "ends": ends, "svg": plots.curve(points, alt=alt)})
    return curves


# -- the template ----------------------------------------------------------------------------------


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_finalize,
    )
    names = ("language", "metric", "number", "signed", "p_value", "percent", "duration", "plural")
    environment.filters.update({name: getattr(facts, name) for name in names})
    environment.globals |= {"ALL": ALL, "ANCHOR": ANCHOR, "RUBRIC": RUBRIC}
    return environment.get_template("page.html.j2")


def _finalize(value: Any) -> Any:
    """What every expression of the template goes through: text that acts is shown, not obeyed."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
