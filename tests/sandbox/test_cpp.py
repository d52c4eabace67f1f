"""C++ programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "int add(int a, int b) { return a + b; }\n"
CASES = {
    "hello": ('#include <iostream>\nint main() { std::cout << "hello"; }', "", "pass", "run"),
    "no_entry_point": ("class A { int f() { return 1; } };", "", "pass", "compile"),
    "right_answer": (ADD, "#include <cassert>\nint main() { assert(add(1, 2) == 3); }", "pass", "run"),
    "wrong_answer": (ADD, "#include <cassert>\nint main() { assert(add(1, 2) == 4); }", "logic", "run"),
    "both_have_main": (f"{ADD}int main() {{ return 9; }}", "int main() { return add(1, 2) != 3; }", "pass", "run"),
    "grammar": ("int main() { return 1 }", "", "syntax", "compile"),
    "type": ('int main() { int x = "a"; }', "", "type", "compile"),
    "wrong_arguments": (f"{ADD}int main() {{ return add(1); }}", "", "type", "compile"),
    "undeclared": ("int main() { return y; }", "", "name", "compile"),
    "missing_header": ("#include <boost/no_such.hpp>\nint main() {}", "", "import", "compile"),
    "exception": ("int main() { throw 1; }", "", "runtime", "run"),
    "memory": ("int main() { for (;;) new char[1 << 20]; }", "", "memory", "run"),
    "endless_templates": ("template <int N> struct S { static const int v = S<N + 1>::v; };\nint x = S<0>::v;", "",
                          "compile_limit", "compile"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("cpp", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_endless_loop_times_out(run: Run) -> None:
    assert (
        run("cpp", "int main() { volatile int i = 0; while (true) i++; }", timeout_seconds=0.5).verdict
        == "timeout"
    )
