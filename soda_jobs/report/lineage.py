"""The stage graph of a run as SVG: a column for each round, time downwards, every box a link. Pure.

Arrows stay inside a round; what a round reads of earlier ones is listed in the table below the picture, where it
does not become a tangle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

from soda_jobs.report.facts import StageFact
from soda_jobs.report.plots import text

WIDTH, HEIGHT = 84, 20  # of a box, in px
STEP_X, STEP_Y, GAP, HEAD = 90, 34, 22, 20
LABEL: Final = 14  # characters that fit into a box

Place = tuple[float, float]


def draw(stages: Sequence[StageFact], *, anchor: str) -> Markup:
    """The graph; each box links to `#<anchor><stage name>`. The report, which reads everything, is left out."""
    shown = [stage for stage in stages if stage.kind != "report"]
    if not shown:
        return Markup("")
    places, columns = _layout(shown)
    width = max(x for x, _ in places.values()) + WIDTH + 1
    height = max(y for _, y in places.values()) + HEIGHT + 1
    parts = [text(x, 11, f"Round {round_}", "lane", "start") for round_, x in columns.items()]
    rounds = {stage.name: stage.round for stage in shown}
    parts += [_edge(places[name], places[stage.name]) for stage in shown for name in _inside(stage, rounds)]
    parts += [_box(stage, places[stage.name], anchor) for stage in shown]
    alt = f"Graph of {len(shown)} stages; the table below lists what each was made from."
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="width:{width:.0f}px;min-width:{0.85 * width:.0f}px"'
    head = f'<svg class="graph" {size} role="group" aria-label="{escape(alt)}">'
    return Markup("".join((head, *parts, "</svg>")))


def _layout(stages: Sequence[StageFact]) -> tuple[dict[str, Place], dict[int, float]]:
    """Where each box and each round's column begins. A box stands below all that it reads of its round."""
    rounds = {stage.name: stage.round for stage in stages}
    depth: dict[str, int] = {}
    rows: dict[tuple[int, int], list[str]] = defaultdict(list)
    for stage in stages:
        depth[stage.name] = 1 + max((depth.get(name, -1) for name in _inside(stage, rounds)), default=-1)
        rows[stage.round, depth[stage.name]].append(stage.name)
    places: dict[str, Place] = {}
    columns: dict[int, float] = {}
    left = 1.0
    for round_ in sorted(set(rounds.values())):
        columns[round_] = left
        mine = {row: names for (column, row), names in rows.items() if column == round_}
        for row, names in mine.items():
            places |= {name: (left + at * STEP_X, HEAD + row * STEP_Y) for at, name in enumerate(names)}
        left += max(map(len, mine.values())) * STEP_X + GAP
    return places, columns


def _inside(stage: StageFact, rounds: dict[str, int]) -> list[str]:
    """What a stage reads of its own round."""
    return [name for name in stage.reads if rounds.get(name) == stage.round]


def _edge(source: Place, target: Place) -> str:
    x1, y1 = source[0] + WIDTH / 2, source[1] + HEIGHT
    x2, y2 = target[0] + WIDTH / 2, target[1]
    bend = (STEP_Y - HEIGHT) / 2
    return f'<path class="edge" d="M{x1:.0f} {y1:.0f}V{y1 + bend:.0f}L{x2:.0f} {y2 - bend:.0f}V{y2:.0f}"/>'


def _box(stage: StageFact, place: Place, anchor: str) -> str:
    x, y = place
    label = stage.name.removeprefix(f"r{stage.round}-")
    short = label if len(label) <= LABEL else f"…{label[1 - LABEL :]}"
    box = f'<rect class="{escape(stage.state)}" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="3"/>'
    name = text(x + WIDTH / 2, y + 14, short, "box", "middle")
    title = f"<title>{escape(stage.name)}, {escape(stage.state)}</title>"
    return f'<a href="#{escape(anchor + stage.name)}">{title}{box}{name}</a>'
