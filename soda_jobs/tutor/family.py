"""The tutor's task family: small pipelines over the numbers of a list, a range or one value, or over a string.

A task keeps some values, changes each, folds them into one number and finishes that number; every step but the
fold may be absent. A task over one value chooses between two changes instead. A task's `name` says everything
about it (`above5_square_sum_add3`), so it is both the function's name and the key all else derives from.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

LANGUAGES: Final = ("python", "javascript", "c")
SOURCES: Final = ("list", "range", "text", "value")
RESERVED_SHARE: Final = 0.15  # of all combinations, kept for the held-out tasks
_LETTERS: Final = "bkmw"  # none of them names a variable in an answer

T = TypeVar("T")
Parameter = int | str | None


@dataclass(frozen=True)
class Component:
    """One word of the family. `{k}` stands for the parameter in every text.

    `phrase` is the condition ("above {k}"), the change of each value ("add {k} to each") or the result; `alone`
    is how a change reads for a single value. `code` is the expression over `x` in all three languages, up to the
    spelling of equality.
    """

    slug: str
    phrase: str
    code: str
    apply: Callable[[Any, Any], Any]
    parameters: Sequence[Parameter] = (None,)
    alone: str = ""


@dataclass(frozen=True)
class Fold:
    """How values become one number: from `start`, one update for each. `{e}` is the changed value."""

    phrase: str
    start: int
    apply: Callable[[int, int], int]
    update: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """A component with its parameter; `slug` is its place in a task's name."""

    kind: str
    k: Parameter = None

    @property
    def slug(self) -> str:
        return COMPONENTS[self.kind].slug.format(k=self.k)

    @property
    def phrase(self) -> str:
        return COMPONENTS[self.kind].phrase.format(k=self.k)

    @property
    def alone(self) -> str:
        return COMPONENTS[self.kind].alone.format(k=self.k)

    def apply(self, value: Any) -> Any:
        return COMPONENTS[self.kind].apply(value, self.k)


@dataclass(frozen=True)
class Task:
    """One task. `keep` holds up to two conditions, joined by `join`; `other` is set for source `value` alone."""

    source: str
    fold: str
    keep: tuple[Part, ...] = ()
    join: str = "and"
    change: Part | None = None
    other: Part | None = None
    finish: Part | None = None

    @property
    def components(self) -> frozenset[Part | str]:
        """Everything the task is made of: its source, its fold and its parts."""
        present = [part for part in (*self.keep, self.change, self.other, self.finish) if part is not None]
        return frozenset((self.source, self.fold, *present))

    @property
    def name(self) -> str:
        kept = f"_{self.join}_".join(part.slug for part in self.keep)
        change = self.change.slug if self.change else ""
        if self.source == "value":
            return f"if_{kept}_{change}_else_{self.other.slug if self.other else ''}"
        finish = self.finish.slug if self.finish else ""
        return "_".join(filter(None, (_PREFIX[self.source], kept, change, self.fold, finish)))

    def evaluate(self, value: Any) -> int:
        """The right answer, in exact integers. `value` is a list of int, an int, or a str, by the source."""
        if self.source == "value":
            chosen = self.change if self._keeps(value) else self.other
            return int(chosen.apply(value)) if chosen else int(value)
        fold = FOLDS[self.fold]
        result = fold.start
        for item in range(1, value + 1) if self.source == "range" else value:
            if self._keeps(item):
                result = fold.apply(result, self.change.apply(item) if self.change else item)
        return int(self.finish.apply(result)) if self.finish else result

    def _keeps(self, item: Any) -> bool:
        verdicts = [part.apply(item) for part in self.keep]
        return any(verdicts) if self.join == "or" and verdicts else all(verdicts)


_SMALL: Final = range(2, 7)
_PREFIX: Final = {"list": "", "range": "upto", "text": "text", "value": "if"}

CONDITIONS: Final = {
    "even": Component("even", "even", "x % 2 == 0", lambda x, k: x % 2 == 0),
    "odd": Component("odd", "odd", "x % 2 != 0", lambda x, k: x % 2 != 0),
    "positive": Component("positive", "positive", "x > 0", lambda x, k: x > 0),
    "negative": Component("negative", "negative", "x < 0", lambda x, k: x < 0),
    "above": Component("above{k}", "above {k}", "x > {k}", lambda x, k: x > k, _SMALL),
    "below": Component("below{k}", "below {k}", "x < {k}", lambda x, k: x < k, _SMALL),
    "by": Component("by{k}", "divisible by {k}", "x % {k} == 0", lambda x, k: x % k == 0, range(3, 7)),
    "other": Component("other{k}", "other than {k}", "x != {k}", lambda x, k: x != k, _SMALL),
}
LETTER_CONDITIONS: Final = {
    "is": Component("is_{k}", "equal to {k}", "x == '{k}'", lambda x, k: x == k, _LETTERS),
    "not": Component("not_{k}", "other than {k}", "x != '{k}'", lambda x, k: x != k, _LETTERS),
    "after": Component("after_{k}", "after {k}", "x > '{k}'", lambda x, k: x > k, _LETTERS),
    "before": Component("before_{k}", "before {k}", "x < '{k}'", lambda x, k: x < k, _LETTERS),
}
CHANGES: Final = {
    "square": Component("square", "square each", "x * x", lambda x, k: x * x, alone="its square"),
    "cube": Component("cube", "cube each", "x * x * x", lambda x, k: x**3, alone="its cube"),
    "negate": Component("negate", "negate each", "-x", lambda x, k: -x, alone="its negative"),
    "plus": Component("plus{k}", "add {k} to each", "x + {k}", lambda x, k: x + k, _SMALL, "it plus {k}"),
    "minus": Component("minus{k}", "take {k} from each", "x - {k}", lambda x, k: x - k, _SMALL, "it minus {k}"),
    "times": Component("times{k}", "multiply each by {k}", "x * {k}", lambda x, k: x * k, _SMALL, "it times {k}"),
}
POINTS: Final = {
    "points": Component("points{k}", "count {k} for each", "{k}", lambda x, k: k, _SMALL),
}
FINISHES: Final = {
    "add": Component("add{k}", "{k} more than", "r + {k}", lambda r, k: r + k, _SMALL),
    "less": Component("less{k}", "{k} less than", "r - {k}", lambda r, k: r - k, _SMALL),
    "scaled": Component("scaled{k}", "{k} times", "r * {k}", lambda r, k: r * k, _SMALL),
}
COMPONENTS: Final = {**CONDITIONS, **LETTER_CONDITIONS, **CHANGES, **POINTS, **FINISHES}


def _same(update: str) -> dict[str, str]:
    return dict.fromkeys(LANGUAGES, update)


FOLDS: Final = {
    "sum": Fold("the sum", 0, lambda r, y: r + y, _same("r += {e}")),
    "product": Fold("the product", 1, lambda r, y: r * y, _same("r *= {e}")),
    "last": Fold("the last one or 0", 0, lambda r, y: y, _same("r = {e}")),
    "max": Fold(
        "the maximum of them and 0",
        0,
        max,
        {"python": "r = max(r, {e})", "javascript": "r = Math.max(r, {e})", "c": "r = r > {e} ? r : {e}"},
    ),
    "min": Fold(
        "the minimum of them and 0",
        0,
        min,
        {"python": "r = min(r, {e})", "javascript": "r = Math.min(r, {e})", "c": "r = r < {e} ? r : {e}"},
    ),
    "count": Fold("the count", 0, lambda r, y: r + 1, _same("r += 1")),
}


@cache
def parts(table: str, source: str) -> tuple[Part, ...]:
    """Every part that may stand in the slot `keep`, `change`, `other` or `finish` of a task over `source`."""
    chosen = {
        "keep": LETTER_CONDITIONS if source == "text" else CONDITIONS,
        "change": POINTS if source == "text" else CHANGES,
        "other": CHANGES,
        "finish": FINISHES,
    }[table]
    # Every number of a range is positive, so its sign says nothing.
    skipped = {"positive", "negative"} if source == "range" else set()
    return tuple(Part(kind, k) for kind, c in chosen.items() if kind not in skipped for k in c.parameters)


def is_reserved(task: Task) -> bool:
    """True for the combinations that only held-out tasks may use, in any language."""
    digest = hashlib.sha256(f"reserved:{task.name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < RESERVED_SHARE * 2**32


class Dice:
    """A stream of choices from a seed: equal on every machine and Python version."""

    def __init__(self, *seed: object) -> None:
        self._seed = "/".join(map(str, seed))
        self._count = 0

    def below(self, bound: int) -> int:
        self._count += 1
        digest = hashlib.sha256(f"{self._seed}#{self._count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % bound

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def component(self, options: Sequence[Part]) -> Part:
        """A part, each kind equally likely whatever the number of its parameters."""
        kind = self.pick(sorted({part.kind for part in options}))
        return self.pick([part for part in options if part.kind == kind])


_KEEP = "|".join(re.escape(p.slug) for s in ("list", "text") for p in parts("keep", s))
_CHANGE = "|".join(re.escape(p.slug) for s in ("list", "text") for p in parts("change", s))
_FINISH = "|".join(re.escape(p.slug) for p in parts("finish", "list"))
_PIPELINE: Final = re.compile(
    rf"(?:(?P<prefix>upto|text)_)?(?:(?P<keep>{_KEEP})(?:_(?P<join>and|or)_(?P<also>{_KEEP}))?_)?"
    rf"(?:(?P<change>{_CHANGE})_)?(?P<fold>{'|'.join(FOLDS)})(?:_(?P<finish>{_FINISH}))?"
)
_CHOICE: Final = re.compile(
    rf"if_(?P<keep>{_KEEP})(?:_(?P<join>and|or)_(?P<also>{_KEEP}))?_(?P<change>{_CHANGE})_else_(?P<other>{_CHANGE})"
)


@cache
def _by_slug(table: str, source: str) -> dict[str, Part]:
    return {part.slug: part for part in parts(table, source)}


def task_named(name: str) -> Task | None:
    """The task whose `name` this is, or None when the family has no such task."""
    choice = _CHOICE.fullmatch(name)
    found = choice or _PIPELINE.fullmatch(name)
    if found is None:
        return None
    slots = found.groupdict()
    prefix = slots.get("prefix")
    source = "value" if choice else next(s for s, p in _PREFIX.items() if p == (prefix or ""))
    keep = [_by_slug("keep", source).get(slots[slot]) for slot in ("keep", "also") if slots[slot]]
    rest = {
        slot: _by_slug(slot, source).get(slots[slot]) for slot in ("change", "other", "finish") if slots.get(slot)
    }
    if None in keep or None in rest.values():
        return None
    kept = tuple(part for part in keep if part)
    return Task(source, slots.get("fold") or "last", kept, slots["join"] or "and", **rest)


def count_tasks() -> int:
    """How many two- and three-step tasks the family has, those with a second condition not counted."""
    total = 0
    for source in SOURCES:
        keep, change = len(parts("keep", source)), len(parts("change", source))
        if source == "value":
            total += keep * change * len(parts("other", source))
            continue
        folds = 1 if source == "text" else len(FOLDS) - 1
        total += math.prod((keep, change, folds, 1 + len(parts("finish", source))))
    return total
