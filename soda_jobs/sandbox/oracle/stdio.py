"""Tests of standard input and output: what goes in, what has to come out, and how the two are compared. Pure.

    {"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}], "judge": "lines"}

as the whole text of the tests, for a program of any language. Only `stdin` enters the sandbox.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox.oracle.values import short

Judge = Callable[[str, str], bool]

_CLOSE: Final = 1e-6  # of numbers, absolutely or of the expected one


def _lines(text: str) -> list[str]:
    """Without blanks at the ends of lines, and without empty lines at the end."""
    found = [line.rstrip() for line in text.splitlines()]
    while found and not found[-1]:
        found.pop()
    return found


def _is_close(said: str, expected: str) -> bool:
    if said == expected:
        return True
    try:
        return math.isclose(float(said), float(expected), rel_tol=_CLOSE, abs_tol=_CLOSE)
    except ValueError:
        return False


def _numbers(said: str, expected: str) -> bool:
    mine, its = said.split(), expected.split()
    return len(mine) == len(its) and all(map(_is_close, mine, its))


JUDGES: Final[Mapping[str, Judge]] = {
    "lines": lambda said, expected: _lines(said) == _lines(expected),
    "words": lambda said, expected: said.split() == expected.split(),
    "numbers": _numbers,
    "lines in any order": lambda said, expected: sorted(_lines(said)) == sorted(_lines(expected)),
}


@dataclass(frozen=True, slots=True)
class Case:
    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class Suite:
    cases: tuple[Case, ...]
    judge: str

    def objection(self, number: int, output: bytes) -> str | None:
        """What is wrong with the output for a case; None when it is right."""
        said = output.decode("utf-8", errors="surrogateescape")
        case = self.cases[number]
        if JUDGES[self.judge](said, case.stdout):
            return None
        return f"case {number + 1} of {len(self.cases)}: it printed {short(said)} and not {short(case.stdout)}"


def read(tests: str) -> Suite | None:
    """The suite that a text of tests is; None when it is code. Raises InvalidInput for a suite that is none."""
    if not tests.lstrip().startswith('{"cases"'):
        return None
    try:
        found = json.loads(tests)
    except ValueError:
        return None
    judge = found.get("judge", "lines")
    if judge not in JUDGES:
        raise InvalidInput(f"{short(judge)} is not one of {', '.join(JUDGES)}", field="tests.judge")
    cases = found["cases"]
    if not isinstance(cases, list) or not cases or not all(map(_is_case, cases)):
        raise InvalidInput("is not a list of at least one {stdin, stdout} with text in both", field="tests.cases")
    return Suite(tuple(Case(case["stdin"], case["stdout"]) for case in cases), judge)


def _is_case(case: Any) -> bool:
    return isinstance(case, dict) and all(isinstance(case.get(key), str) for key in ("stdin", "stdout"))
