"""Choices that are random to the eye and fixed by ids: shares, samples, and which questions get children."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from soda_jobs.records import Level

# Every level, from easy to hard.
HARDER: Final[tuple[Level, ...]] = ("easy", "medium", "hard")
_ONE: Final = 1 << 64


class Ratio(BaseModel):
    """Shares of the levels among parents. Default: SODA 4.6."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    easy: int = 1
    medium: int = 1
    hard: int = 2


def draw_key(row_id: str, seed: object) -> int:
    """A number in [0, 2^64) for a row: rows in the order of their keys are in random order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{row_id}".encode()).digest()[:8], "big")


def is_preference(question_id: str, fraction: float) -> bool:
    """True for a `fraction` of all questions, the same ones whatever else there is."""
    return draw_key(question_id, "preference") < fraction * _ONE


def shares(count: int, ratio: Mapping[Level, int]) -> dict[Level, int]:
    """`count` divided by `ratio`, largest remainders first, of equal remainders the harder level."""
    total = sum(ratio.values())
    exact = {level: divmod(count * ratio[level], total) for level in HARDER}
    result = {level: whole for level, (whole, _) in exact.items()}
    by_remainder = sorted(HARDER, key=lambda level: (exact[level][1], HARDER.index(level)), reverse=True)
    for level in by_remainder[: count - sum(result.values())]:
        result[level] += 1
    return result


def quotas(count: int, ratio: Mapping[Level, int], room: Mapping[Level, int]) -> dict[Level, int]:
    """`shares`, with what a level has no room for given to the next harder ones, else to the next easier.

    The sum is below `count` only when there is no room left at all.
    """
    wanted = shares(count, ratio)
    for place, level in enumerate(HARDER):
        surplus = max(0, wanted[level] - room[level])
        wanted[level] -= surplus
        for other in (*HARDER[place + 1 :], *reversed(HARDER[:place])):
            moved = min(surplus, max(0, room[other] - wanted[other]))
            wanted[other] += moved
            surplus -= moved
    return wanted


def choose_parents(
    questions: Sequence[dict[str, Any]],
    levels: Mapping[str, Level | None],
    *,
    count: int,
    ratio: Ratio | None,
    max_children: int,
    seed: object,
) -> list[dict[str, Any]]:
    """`count` questions to make new ones from, each with its `level` and `copy` (0 for its first child).

    A level is used up before any of its questions comes a second time, and none comes more than `max_children`
    times. Questions without a level are left out. Without a ratio, the draw is over all questions whatever their
    level, and one that has none counts as medium.
    """
    if ratio is None:
        placed = [{**row, "level": levels.get(row["id"]) or "medium"} for row in questions]
        return _draw(placed, count, max_children, seed)
    members: dict[Level, list[dict[str, Any]]] = {level: [] for level in HARDER}
    for row in questions:
        level = levels.get(row["id"])
        if level is not None:
            members[level].append({**row, "level": level})
    room = {level: len(rows) * max_children for level, rows in members.items()}
    wanted = quotas(count, {"easy": ratio.easy, "medium": ratio.medium, "hard": ratio.hard}, room)
    return [row for level in HARDER for row in _draw(members[level], wanted[level], max_children, seed)]


def _draw(rows: Sequence[dict[str, Any]], count: int, max_children: int, seed: object) -> list[dict[str, Any]]:
    ordered = sorted(rows, key=lambda row: (draw_key(row["id"], seed), row["id"]))
    copies = ({**row, "copy": copy} for copy in range(max_children) for row in ordered)
    return [row for row, _ in zip(copies, range(count), strict=False)]
