"""Python programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "def add(a, b):\n    return a + b\n"
CASES = {
    "hello": ("print('hello')", "", "pass", "run"),
    "right_answer": (ADD, "assert add(1, 2) == 3", "pass", "run"),
    "wrong_answer": (ADD, "assert add(1, 2) == 4, 'no'", "logic", "run"),
    "grammar": ("def f(:\n    pass", "", "syntax", "compile"),
    "indentation": ("def f():\npass", "", "syntax", "compile"),
    "type": ("1 + 'a'", "", "type", "run"),
    "undefined": ("print(x)", "", "name", "run"),
    "missing_symbol": ("import math\nmath.foo()", "", "name", "run"),
    "missing_module": ("import no_such_module", "", "import", "run"),
    "exception": ("[][0]", "", "runtime", "run"),
    "own_exception": ("class Odd(Exception): pass\nraise Odd('x')", "", "runtime", "run"),
    "chained_exception": ("try:\n    [][0]\nexcept IndexError:\n    raise TypeError('x')", "", "type", "run"),
    "exit_code": ("import sys\nsys.exit(3)", "", "runtime", "run"),
    "exit_message": ("import sys\nsys.exit('TypeError: not really')", "", "runtime", "run"),
    "recursion": ("def f():\n    f()\nf()", "", "runtime", "run"),
    "closed_input": ("input()", "", "environment", "run"),
    "memory": ("x = bytearray(50 << 30)", "", "memory", "run"),
    "leak": ("x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "", "memory", "run"),
    "unittest": (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        "
                 "self.assertEqual(add(1, 2), 3)\nunittest.main()", "pass", "run"),
    "unittest_fails": (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        "
                       "self.assertEqual(add(1, 2), 4)\nunittest.main()", "logic", "run"),
    "null_character": ("x = '\0'", "", "syntax", "compile"),
    "lone_surrogate": ("x = '\ud800'", "", "syntax", "compile"),
    "byte_order_mark": ("\ufeffprint(1)", "", "pass", "run"),
    "windows_line_ends": ("if True:\r\n    print(1)\r\n", "", "pass", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("python", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


@pytest.mark.parametrize("package", ["numpy", "pip", "pytest", "soda_jobs"])
def test_what_else_is_installed_is_not_there(run: Run, package: str) -> None:
    verdict = run("python", f"import {package}")
    assert (verdict.verdict, verdict.detail) == ("import", f"ModuleNotFoundError: No module named '{package}'")


def test_its_interpreter_starts_again_and_knows_no_packages(run: Run) -> None:
    code = (
        "import subprocess, sys\n"
        "child = 'import sys; print(sys.path[1:]); exit()'\n"
        "found = subprocess.check_output([sys.executable, '-c', child], text=True)\n"
        "assert '/lib/python' in found and 'packages' not in found, found\n"
    )
    assert run("python", code).verdict == "pass"


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("python", "while True: pass", timeout_seconds=0.5).verdict == "timeout"


def test_input_is_given_and_then_ends(run: Run) -> None:
    code = "import sys\nassert input() == 'ä'\nassert sys.stdin.read() == 'b'\n"
    assert run("python", code, stdin="ä\nb").verdict == "pass"


def test_its_main_guard_runs_without_tests_and_not_with_them(run: Run) -> None:
    code = "if __name__ == '__main__':\n    raise SystemExit(3)\n"
    assert run("python", code).verdict == "runtime"
    assert run("python", code, "assert True").verdict == "pass"


@pytest.mark.parametrize("leave", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "quit()"])
def test_leaving_before_the_tests_is_not_a_pass(run: Run, leave: str) -> None:
    assert run("python", leave, "assert False").verdict == "runtime"
    assert run("python", leave).verdict == "pass"


def test_details_are_the_same_each_time(run: Run) -> None:
    code = "import os\nraise ValueError(object(), id([]), os.getpid(), os.getcwd(), hash('a'))"
    details = {run("python", code).detail for _ in range(3)}
    assert len(details) == 1
