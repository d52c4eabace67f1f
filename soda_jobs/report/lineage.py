"""The stage graph of a run as SVG: a lane for each round, time to the right, every box a link. Pure.

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

WIDTH, HEIGHT = 86, 20  # of a box, in px
STEP_X, STEP_Y, LANE = 104, 27, 16
LABEL: Final = 14  # characters that fit into a box

Place = tuple[float, float]


def draw(stages: Sequence[StageFact], *, anchor: str) -> Markup:
    """The graph; each box links to `#<anchor><stage name>`. Empty without stages."""
    if not stages:
        return Markup("")
    places, lanes, height = _layout(stages)
    width = max(x for x, _ in places.values()) + WIDTH + 4
    parts = [text(0, y + 14, f"Round {round_}", "lane", "start") for round_, y in lanes.items()]
    rounds = {stage.name: stage.round for stage in stages}
    for stage in stages:
        for source in _inside(stage, rounds):
            parts.append(_edge(places[source], places[stage.name]))
    parts += [_box(stage, places[stage.name], anchor) for stage in stages]
    alt = f"Graph of {len(stages)} stages in {len(lanes)} lanes; the table below lists every edge."
    style = f'style="min-width:{width:.0f}px;max-width:{width * 1.2:.0f}px"'
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" {style}'
    head = f'<svg class="graph" {size} role="group" aria-label="{escape(alt)}">'
    return Markup("".join((head, *parts, "</svg>")))


def _layout(stages: Sequence[StageFact]) -> tuple[dict[str, Place], dict[int, float], float]:
    """Where each box and each lane begins, and the height of it all. A box stands right of what it reads."""
    rounds = {stage.name: stage.round for stage in stages}
    depth: dict[str, int] = {}
    columns: dict[tuple[int, int], list[str]] = defaultdict(list)
    for stage in stages:
        depth[stage.name] = 1 + max((depth.get(name, -1) for name in _inside(stage, rounds)), default=-1)
        columns[stage.round, depth[stage.name]].append(stage.name)
    places: dict[str, Place] = {}
    lanes: dict[int, float] = {}
    top = 0.0
    for round_ in sorted(set(rounds.values())):
        lanes[round_] = top
        mine = {column: names for (lane, column), names in columns.items() if lane == round_}
        for column, names in mine.items():
            places |= {name: (60 + column * STEP_X, top + row * STEP_Y) for row, name in enumerate(names)}
        top += max(map(len, mine.values())) * STEP_Y + LANE
    return places, lanes, top


def _inside(stage: StageFact, rounds: dict[str, int]) -> list[str]:
    """What a stage reads of its own round. The report reads everything, so nothing is drawn for it."""
    if stage.kind == "report":
        return []
    names = dict.fromkeys(name for sources in stage.inputs.values() for name in sources)
    return [name for name in names if rounds.get(name) == stage.round]


def _edge(source: Place, target: Place) -> str:
    x1, y1 = source[0] + WIDTH, source[1] + HEIGHT / 2
    x2, y2 = target[0], target[1] + HEIGHT / 2
    bend = x2 - (STEP_X - WIDTH) / 2
    return f'<path class="edge" d="M{x1:.0f} {y1:.0f}H{bend - 6:.0f}L{bend:.0f} {y2:.0f}H{x2:.0f}"/>'


def _box(stage: StageFact, place: Place, anchor: str) -> str:
    x, y = place
    label = stage.name.removeprefix(f"r{stage.round}-")
    short = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
    box = f'<rect class="{escape(stage.state)}" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="3"/>'
    name = text(x + WIDTH / 2, y + 14, short, "box", "middle")
    title = f"<title>{escape(stage.name)}, {escape(stage.state)}</title>"
    return f'<a href="#{escape(anchor + stage.name)}">{title}{box}{name}</a>'
