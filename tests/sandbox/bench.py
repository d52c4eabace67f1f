"""Public benchmarks as programs, from the folder that SODA_BENCH_DATA names: humaneval, humanevalplus, mbpp and
humaneval-x as their authors publish them."""

import gzip
import json
import os
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox.oracle.tokens import Token, tokens
from soda_jobs.sandbox.types import Program

Row = dict[str, Any]

# A stand-in for numpy, which no sandbox has, for tests that use it to compare numbers.
_NUMPY = """
class np:
    class ndarray: pass
    float64 = float32 = ndarray
    @staticmethod
    def allclose(a, b, rtol=1e-05, atol=1e-08):
        if isinstance(a, (list, tuple)) != isinstance(b, (list, tuple)): return False
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(np.allclose(x, y, rtol, atol) for x, y in zip(a, b))
        return a == b or abs(a - b) <= atol + rtol * abs(b)
"""
_TESTIFY = """
type testifyLike struct{ t *testing.T }
func (a testifyLike) Equal(x, y interface{}, _ ...interface{}) {
	if !reflect.DeepEqual(x, y) { a.t.Errorf("not equal: %v %v", x, y) }
}
"""
_GO_PACKAGES = (
    *("bytes", "crypto/md5", "encoding/hex", "errors", "fmt", "math", "math/big", "math/rand", "os", "reflect"),
    *("regexp", "sort", "strconv", "strings", "testing", "time", "unicode"),
)
_BOOST = "#include <any>\nnamespace boost { using std::any; using std::any_cast; }\n"


@dataclass(frozen=True)
class Task:
    """A canonical solution with its tests. `given` is the part of its code that was to be completed."""

    program: Program
    given: str = ""


def mutant(task: Task, seed: str) -> Task | None:
    """The task with one token of its solution changed; None when it has none to change."""
    code = task.program.code
    found = tokens(task.program.language, code).items
    places = [token for token in found if token.start >= len(task.given) and _changed(token) is not None]
    if not places:
        return None
    token = random.Random(f"{seed} {task.program.id}").choice(places)
    changed = code[: token.start] + (_changed(token) or "") + code[token.end :]
    return replace(task, program=replace(task.program, code=changed))


def _changed(token: Token) -> str | None:
    if token.kind == "number":
        return str(int(token.text) + 1) if token.text.isdigit() else None
    return _OTHER.get(token.text) if token.kind in ("sign", "name") else None


_OTHER = {
    "+": "-",
    "-": "+",
    "*": "+",
    "%": "*",
    "==": "!=",
    "!=": "==",
    "<": ">=",
    ">": "<=",
    "<=": ">",
    ">=": "<",
    "and": "or",
    "or": "and",
    "&&": "||",
    "||": "&&",
    "True": "False",
    "False": "True",
    "true": "false",
    "false": "true",
    "min": "max",
    "max": "min",
    "===": "!==",
    "!==": "===",
}


def rows(name: str) -> list[Row]:
    folder = os.environ.get("SODA_BENCH_DATA")
    if folder is None:
        pytest.skip("SODA_BENCH_DATA names no folder of benchmarks")
    path = Path(folder, name)
    text = (
        gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    )
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def humaneval() -> list[Task]:
    return [_checked(row, row["test"]) for row in rows("humaneval/HumanEval.jsonl.gz")]


def humaneval_plus(*, with_numpy: bool) -> list[Task]:
    """`with_numpy` is for tests that run inside, where there is none."""
    stand_in = _NUMPY if with_numpy else "import numpy as np\n"
    return [
        _checked(row, row["test"].replace("import numpy as np\n", stand_in))
        for row in rows("humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz")
    ]


def _checked(row: Row, tests: str) -> Task:
    code = row["prompt"] + row["canonical_solution"]
    return _task(row["task_id"], "python", code, f"{tests}\ncheck({row['entry_point']})\n", row["prompt"])


def mbpp() -> list[Task]:
    return [
        _task(
            f"Mbpp/{row['task_id']}", "python", row["code"], "\n".join([row["test_setup_code"], *row["test_list"]])
        )
        for row in rows("mbpp/mbpp.jsonl")
    ]


def mbpp_sanitized() -> list[Task]:
    return [
        _task(
            f"Mbpp/{row['task_id']}", "python", row["code"], "\n".join([*row["test_imports"], *row["test_list"]])
        )
        for row in rows("mbpp/sanitized-mbpp.json")
    ]


def humaneval_x(language: str) -> list[Task]:
    folder = {"javascript": "js"}.get(language, language)
    found = rows(f"humaneval-x/{folder}/humaneval_{folder}.jsonl.gz")
    return [_ASSEMBLE.get(language, _as_it_is)(language, row) for row in found]


def _as_it_is(language: str, row: Row) -> Task:
    return _task(row["task_id"], language, row["prompt"] + row["canonical_solution"], row["test"], row["prompt"])


def _cpp(language: str, row: Row) -> Task:
    given = re.sub(r"#include\s*<boost/any.hpp>\n", _BOOST, row["prompt"])
    return _task(row["task_id"], language, given + row["canonical_solution"], row["test"], given)


def _go(language: str, row: Row) -> Task:
    """The prompt's imports are cut; of the common packages those are imported that are named."""
    given = re.sub(r'^import (?:\(.*?^\)|"[^"]*")', "", row["prompt"], count=1, flags=re.MULTILINE | re.DOTALL)
    code, tests = given + row["canonical_solution"], row["test"] + _TESTIFY
    tests = tests.replace("assert.New(t)", "testifyLike{t}")
    whole = f"package main\n{_imports(code)}{code}"
    return _task(
        row["task_id"],
        language,
        whole,
        f"package main\n{_imports(tests)}{tests}",
        whole[: -len(row["canonical_solution"])],
    )


def _imports(text: str) -> str:
    bare = re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|`[^`]*`', "", text, flags=re.DOTALL)
    used = [name for name in _GO_PACKAGES if re.search(rf"\b{name.rpartition('/')[2]}\.", bare)]
    return "".join(f'import "{name}"\n' for name in used)


def _rust(language: str, row: Row) -> Task:
    given = re.sub(r"use (?:rand::Rng|regex::Regex|md5);\n?", "", row["declaration"])
    return _task(row["task_id"], language, given + row["canonical_solution"], row["test"], given)


_ASSEMBLE = {"go": _go, "rust": _rust, "cpp": _cpp}


def _task(name: str, language: str, code: str, tests: str, given: str = "") -> Task:
    code = code.replace("\r\n", "\n")
    return Task(Program(name, language, code, tests, timeout_seconds=20.0, memory_mib=2048), given)
