"""TypeScript programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "function add(a: number, b: number): number { return a + b; }"
CASES = {
    "hello": ("const name: string = 'you'; console.log('hello', name)", "", "pass", "run"),
    "right_answer": (ADD, "if (add(1, 2) !== 3) throw new Error('no')", "pass", "run"),
    "wrong_answer": (ADD, "if (add(1, 2) !== 4) throw new Error('no')", "logic", "run"),
    "assert_module": (ADD, "declare var require: any;\nconst assert = require('node:assert');\n"
                      "assert.deepEqual(add(1, 2), 3);", "pass", "run"),
    "assert_fails": (ADD, "declare var require: any;\nconst assert = require('node:assert');\n"
                     "assert.deepEqual(add(1, 2), 4);", "logic", "run"),
    "console_assert_fails": (ADD, "console.assert(add(1, 2) === 4)", "logic", "run"),
    "imported_assert": (
        f"import assert from 'assert';\n{ADD}", "assert.strictEqual(add(1, 2), 4)", "logic", "run"),
    "module_syntax": (
        "import fs from 'fs';\nexport const a: number = 1;\nconsole.log(await 1);", "", "pass", "run"),
    "enums_and_generics": (
        "enum E { A = 1 }\nclass Box<T> { constructor(public v: T) {} }\nconst b = new Box<E>(E.A);",
        "if (b.v !== 1) throw new Error()", "pass", "run"),
    "implicit_any": ("function f(x) { return x; }\nconsole.log(f(1));", "", "pass", "run"),
    "grammar": ("const f = (", "", "syntax", "compile"),
    "type": ("const x: number = 'a';", "", "type", "compile"),
    "argument_type": (f"{ADD}\nadd('a', 2);", "", "type", "compile"),
    "argument_type_in_tests": (ADD, "add('a', 2);", "type", "compile"),
    "undefined": ("foo();", "", "name", "compile"),
    "no_property": ("const a = {b: 1}; console.log(a.c);", "", "name", "compile"),
    "no_browser": ("document.title = 'a';", "", "name", "compile"),
    "missing_module": ("import x from 'no-such-module'; x();", "", "import", "compile"),
    "null_at_run_time": ("const f = (): any => null; f().x;", "", "type", "run"),
    "rejected_promise": ("Promise.reject(new RangeError('x'));", "", "runtime", "run"),
    "exit_code": ("process.exit(2)", "", "runtime", "run"),
    "leaves_before_tests": ("process.exit(0)", "throw new Error('no')", "runtime", "run"),
    "memory": ("const a: number[][] = []; while (true) a.push(new Array(10000).fill(1.5));", "", "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("typescript", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_error_keeps_its_line_and_code(run: Run) -> None:
    assert run("typescript", "\n\nfoo();", "1;").detail == "main.ts:3: TS2304: Cannot find name 'foo'."


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("typescript", "while (true) {}", timeout_seconds=0.5).verdict == "timeout"
