"""Ruby programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "def add(a, b)\n  a + b\nend"


def checking(check: str) -> str:
    return f"require 'test/unit'\nclass TestAdd < Test::Unit::TestCase\n  def test_add\n    {check}\n  end\nend\n"


CASES = {
    "hello": ("puts 'hello'", "", "pass", "run"),
    "right_answer": (ADD, "raise 'no' unless add(1, 2) == 3", "pass", "run"),
    "wrong_answer": (ADD, "raise 'no' unless add(1, 2) == 4", "logic", "run"),
    "test_unit": (ADD, checking("assert_equal(3, add(1, 2))"), "pass", "run"),
    "test_unit_fails": (ADD, checking("assert_equal(4, add(1, 2))"), "logic", "run"),
    "minitest": (ADD, checking("assert_equal(4, add(1, 2))").replace("test/unit", "minitest/autorun").replace(
        "Test::Unit::TestCase", "Minitest::Test"), "logic", "run"),
    "own_guard_is_off": (f"{ADD}\nexit(3) if __FILE__ == $0", "raise 'no' unless add(1, 2) == 3", "pass", "run"),
    "grammar": ("def f(\n", "", "syntax", "compile"),
    "type": ("1 + 'a'", "", "type", "run"),
    "nil": ("nil.upcase", "", "type", "run"),
    "argument_count": (f"{ADD}\nadd(1)", "", "type", "run"),
    "undefined": ("foo", "", "name", "run"),
    "undefined_method": ("foo(1)", "", "name", "run"),
    "missing_library": ("require 'no_such_library'", "", "import", "run"),
    "library": ("require 'set'\nrequire 'json'\nputs JSON.generate(Set[1].to_a)", "", "pass", "run"),
    "raise": ("raise ArgumentError, 'no'", "", "runtime", "run"),
    "recursion": ("def f = f\nf", "", "runtime", "run"),
    "exit_code": ("exit 2", "", "runtime", "run"),
    "leaves_before_tests": ("exit 0", "raise 'no'", "runtime", "run"),
    "memory": ("a = []\nloop { a << 'x' * 1_000_000 }", "", "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("ruby", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("ruby", "loop {}", timeout_seconds=0.5).verdict == "timeout"
