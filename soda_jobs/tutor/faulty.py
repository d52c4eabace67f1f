"""Programs with one real fault of a named type, and no word about it.

Each fault always shows when the function is called on its tests: the program does not parse, or it meets the
undefined name or the unsupported operation, never ends on an input that is not empty, or gives a wrong result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from soda_jobs.tutor.checks import is_wrong
from soda_jobs.tutor.family import FOLDS, Dice, Task, parts
from soda_jobs.tutor.solutions import assemble, pieces, solution

# The loops with a condition that nothing in them changes.
_ENDLESS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "python": {
        "list": ("i = 0", "while i < len(xs):", "    x = xs[i]"),
        "range": ("x = 1", "while x <= n:"),
        "text": ("i = 0", "while i < len(s):", "    x = s[i]"),
        "value": ("while x == x:", "    y = x"),
    },
    "javascript": {
        "list": ("let i = 0;", "while (i < xs.length) {", "    const x = xs[i];"),
        "range": ("let x = 1;", "while (x <= n) {"),
        "text": ("let i = 0;", "while (i < s.length) {", "    const x = s[i];"),
        "value": ("while (x === x) { let y = x; }",),
    },
    "c": {
        "list": ("while (n > 0) {", "    int x = *xs;"),
        "range": ("int x = 1;", "while (x <= n) {"),
        "text": ("while (*s) {", "    int x = *s;"),
        "value": ("while (x == x) { int y = x; }",),
    },
}
# What a number does not support, in a form that each language always refuses.
_MISUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("{}()", "len({})", "{}[0]"),
    "javascript": ("{}()", "{}.trim()", "{}.at(0)"),
    "c": ("{}()", "{}[0]", "(*{})"),
}
_STRANGERS: Final = ("result", "total", "acc", "answer")


def _syntax(task: Task, language: str, dice: Dice) -> str:
    """A bracket, a colon or a brace short."""
    code = solution(task, language)
    header, rest = code.split("\n", 1)
    without_bracket = header.replace("(", " ", 1) + "\n" + rest
    without_opening = header[:-1].rstrip() + "\n" + rest  # `:` in Python, `{` elsewhere
    return dice.pick((without_bracket, without_opening))


def _logical(task: Task, language: str, dice: Dice) -> str:
    """One step of another task of the family; if none drawn is wrong on the tests, a result that is off by one."""
    for _ in range(12):
        other = _slip(task, dice)
        if is_wrong(other, task):
            return assemble(pieces(other, language, task.name), language)
    return _with_result(task, language, "{} + 1")


def _slip(task: Task, dice: Dice) -> Task:
    slots = [slot for slot in ("keep", "change", "other", "finish") if getattr(task, slot)]
    slot = dice.pick([*slots, "fold"] if task.source == "list" and task.change else slots)
    if slot == "fold":
        return replace(task, fold=dice.pick([fold for fold in FOLDS if fold != "count"]))
    part = dice.pick(parts(slot, task.source))
    return {
        "keep": lambda: replace(task, keep=(part, *task.keep[1:])),
        "change": lambda: replace(task, change=part),
        "other": lambda: replace(task, other=part),
        "finish": lambda: replace(task, finish=part),
    }[slot]()


def _with_result(task: Task, language: str, use: str) -> str:
    """The right program, but what it returns is made of `use`, with `{}` for the result's variable."""
    variable = "x" if task.source == "value" else "r"
    right = pieces(task, language)

    def changed(line: str) -> str:
        return re.sub(rf"\b{variable}\b", use.format(variable), line, count=1)

    update = changed(right.update) if task.source == "value" else right.update
    return assemble(replace(right, update=update, result=changed(right.result)), language)


def _type(task: Task, language: str, dice: Dice) -> str:
    return _with_result(task, language, dice.pick(_MISUSES[language]))


def _name(task: Task, language: str, dice: Dice) -> str:
    return _with_result(task, language, dice.pick(_STRANGERS))


def _timeout(task: Task, language: str, dice: Dice) -> str:
    right = pieces(task, language)
    endless = replace(right, loop=_ENDLESS[language][task.source])
    if task.source != "value":
        return assemble(endless, language)
    header, rest = solution(task, language).split("\n", 1)
    return "\n".join([header, *(f"    {line}" for line in endless.loop), rest])


_FAULTY: Final[Mapping[str, Callable[[Task, str, Dice], str]]] = {
    "Syntax": _syntax,
    "Logical": _logical,
    "Type": _type,
    "Name": _name,
    "Timeout": _timeout,
}


def faulty(task: Task, language: str, fault: str, dice: Dice) -> str:
    """A program with one fault of the type `fault`, a key of `prompts.faults.FAULTS`."""
    return _FAULTY[fault](task, language, dice)
