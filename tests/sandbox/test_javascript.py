"""JavaScript programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "const add = (a, b) => a + b;"
CASES = {
    "hello": ("console.log('hello')", "", "pass", "run"),
    "right_answer": (ADD, "if (add(1, 2) !== 3) throw new Error('no')", "pass", "run"),
    "wrong_answer": (ADD, "if (add(1, 2) !== 4) throw new Error('no')", "logic", "run"),
    "console_assert_holds": (ADD, "console.assert(add(1, 2) === 3)", "pass", "run"),
    "console_assert_fails": (ADD, "console.assert(add(1, 2) === 4)", "logic", "run"),
    "assert_module": (ADD, "require('assert').strictEqual(add(1, 2), 4)", "logic", "run"),
    "grammar": ("const f = (", "", "syntax", "compile"),
    "grammar_at_run_time": ("JSON.parse('{')", "", "runtime", "run"),
    "type": ("null.x", "", "type", "run"),
    "undefined": ("foo()", "", "name", "run"),
    "missing_module": ("require('no-such-module')", "", "import", "run"),
    "missing_module_esm": ("import x from 'no-such-module';", "", "import", "run"),
    "module_syntax": ("import fs from 'fs';\nexport const a = 1;\nconsole.log(await 1);", "", "pass", "run"),
    "module_with_tests": (f"export {ADD}", "if (add(1, 2) !== 4) throw new Error()", "logic", "run"),
    "rejected_promise": ("Promise.reject(new TypeError('x'))", "", "type", "run"),
    "recursion": ("const f = () => f(); f()", "", "runtime", "run"),
    "exit_code": ("process.exit(2)", "", "runtime", "run"),
    "leaves_before_tests": ("process.exit(0)", "console.assert(false)", "runtime", "run"),
    "memory": ("const a = []; while (true) a.push(new Array(10000).fill(1.5))", "", "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("javascript", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("javascript", "while (true) {}", timeout_seconds=0.5).verdict == "timeout"
