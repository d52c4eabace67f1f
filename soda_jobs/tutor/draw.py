"""Draw tasks: a shape says which steps a task has, the dice say which components fill them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from soda_jobs.tutor.family import FOLDS, Dice, Part, Task, is_reserved, parts

# A second condition comes from the other group, so that no pair is idle (`even and odd`).
_DIVISIBILITY: Final = ("even", "odd", "by")
_FOLDS: Final = tuple(fold for fold in FOLDS if fold != "count")


@dataclass(frozen=True)
class Shape:
    """Which steps a task has. Without a change the values themselves are folded, or counted."""

    source: str
    conditions: int = 1
    change: bool = True
    finish: bool = False


def shape_of(task: Task) -> Shape:
    return Shape(task.source, len(task.keep), task.change is not None, task.finish is not None)


def harder(shape: Shape) -> Shape:
    """The same source with one more step, or the same shape when it has them all."""
    if shape.conditions == 0:
        return replace(shape, conditions=1)
    if not shape.change:
        return replace(shape, change=True)
    if not shape.finish and shape.source != "value":
        return replace(shape, finish=True)
    return replace(shape, conditions=2)


def draw(shape: Shape, dice: Dice, *, reserved: bool = False) -> Task:
    """A task of this shape that is, or is not, one of the reserved combinations."""
    while True:
        task = _draw(shape, dice)
        if is_reserved(task) == reserved:
            return task


def _draw(shape: Shape, dice: Dice) -> Task:
    source = shape.source
    keep = _conditions(shape, dice)
    change = dice.component(parts("change", source)) if shape.change else None
    if source == "value":
        others = [part for part in parts("other", source) if part != change]
        return Task(source, "last", keep, _join(keep, source, dice), change, other=dice.component(others))
    fold = "sum" if source == "text" else dice.pick(_FOLDS if shape.change else tuple(FOLDS))
    finish = dice.component(parts("finish", source)) if shape.finish else None
    return Task(source, fold, keep, _join(keep, source, dice), change, finish=finish)


def _conditions(shape: Shape, dice: Dice) -> tuple[Part, ...]:
    options = parts("keep", shape.source)
    chosen: list[Part] = []
    for _ in range(shape.conditions):
        if chosen and shape.source == "text":
            options = tuple(part for part in options if part.kind != chosen[0].kind)
        elif chosen:
            divides = chosen[0].kind in _DIVISIBILITY
            options = tuple(part for part in options if (part.kind in _DIVISIBILITY) != divides)
        chosen.append(dice.component(options))
    return tuple(chosen)


def _join(keep: tuple[Part, ...], source: str, dice: Dice) -> str:
    """`and` or `or`; two conditions on one character would often exclude each other, so there always `or`."""
    if len(keep) < 2:
        return "and"
    return "or" if source == "text" else dice.pick(("and", "or"))
