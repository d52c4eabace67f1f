"""Test inputs of a task, and its test program in each language. Right answers come from the task itself."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Final

from soda_jobs.tutor.family import Dice, Task

_CASES: Final = 6
_LIMIT: Final = 2**31 // 16  # every intermediate result stays far inside a C int, whatever the finish does


def inputs(task: Task) -> list[Any]:
    """Six arguments, the empty one first: they stand around the task's own parameters and hold negatives."""
    dice = Dice("inputs", task.name)
    parameters = [part.k for part in (*task.keep, task.change, task.other) if part is not None]
    numbers = [k for k in parameters if isinstance(k, int)] or [2]
    letters = [k for k in parameters if isinstance(k, str)] or ["m"]
    candidates: list[Any]
    if task.source == "list":
        candidates = _lists(numbers, dice)
    elif task.source == "text":
        candidates = _strings(letters, dice)
    elif task.source == "range":
        candidates = [0, 1, -2, 3, *(k + 1 for k in numbers), 5, 7, 10, 4, 2]
    else:
        candidates = [0, -4, 12, *(k + d for k in numbers for d in (0, 1, -1)), 7, -1, 3, 20]
    distinct = {repr(value): value for value in candidates}.values()
    return list(islice((value for value in distinct if _is_small(task, value)), _CASES))


def _lists(numbers: list[int], dice: Dice) -> list[list[int]]:
    drawn = [[dice.below(20) - 6 for _ in range(2 + dice.below(4))] for _ in range(4)]
    around = [[k - 1, k, k + 1] for k in numbers[:2]]
    return [[], *around, [-3, -2, 0, 1, 4], *drawn, [3, -4], [-1, 2], [6], [1]]


def _strings(letters: list[str], dice: Dice) -> list[str]:
    around = ["".join((chr(ord(k) - 1), k, chr(ord(k) + 1), k)) for k in letters]
    drawn = [
        "".join(dice.pick("abcdefghijklmnopqrstuvwxyz " + "".join(letters) * 4) for _ in range(9))
        for _ in range(3)
    ]
    return ["", *around, "the quick brown fox", *drawn, "zebra", "apple pie"]


def _is_small(task: Task, value: Any) -> bool:
    """True when no step of the computation leaves the range of a C int."""
    if task.source == "range":
        return all(abs(task.evaluate(n)) < _LIMIT for n in range(value + 1))
    if task.source == "list":
        return all(abs(task.evaluate(value[:n])) < _LIMIT for n in range(len(value) + 1))
    return True


def is_wrong(other: Task, task: Task) -> bool:
    """True when the program of `other` fails the tests of `task`, with no help from integer overflow."""
    return any(_is_small(other, value) and other.evaluate(value) != task.evaluate(value) for value in inputs(task))


def check_program(task: Task, language: str) -> str:
    """The test program to put after a solution: asserts, an Error thrown, or a `main` that returns non-zero."""
    cases = [(value, task.evaluate(value)) for value in inputs(task)]
    if language == "python":
        return "".join(f"assert {task.name}({json.dumps(value)}) == {right}\n" for value, right in cases)
    if language == "javascript":
        calls = [(f"{task.name}({json.dumps(value)})", right) for value, right in cases]
        return "".join(
            f"if ({call} !== {right}) throw new Error({json.dumps(f'{call} is not {right}')});\n"
            for call, right in calls
        )
    lines = [
        f"    if ({task.name}({_c_arguments(value)}) != {right}) return {number};\n"
        for number, (value, right) in enumerate(cases, start=1)
    ]
    return "int main(void) {\n" + "".join(lines) + "    return 0;\n}\n"


def _c_arguments(value: Any) -> str:
    if isinstance(value, list):
        return f"(const int[]){{{', '.join(map(str, value or [0]))}}}, {len(value)}"
    return json.dumps(value)
