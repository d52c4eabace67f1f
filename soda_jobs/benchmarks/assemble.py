"""From a task and an answer to the program that is run: (code, tests). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Task = Mapping[str, Any]


def program(task: Task, code: str) -> tuple[str, str]:
    """The code to run and the tests to run after it; without tests in the task the second is empty."""
    assemble = _ASSEMBLERS.get(task.get("source", ""), _as_it_is)
    return assemble(task, code), task.get("tests", "")


def given(task: Task) -> str:
    """The code that the task gives and that is to be completed, of which whole functions are the task's own."""
    return task.get("starter_code", "") if task.get("source", "") in _ASSEMBLERS else ""


def _as_it_is(task: Task, code: str) -> str:
    return code


def _continued(task: Task, code: str) -> str:
    """The prompt and its continuation, as HumanEval's own harness joins them.

    A whole solution works too: it defines the function again, and the imports and helpers of the prompt stay.
    """
    return f"{task['starter_code']}{code}"


_ASSEMBLERS: Final[Mapping[str, Callable[[Task, str], str]]] = {"benchmark:humaneval": _continued}
