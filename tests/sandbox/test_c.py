"""C programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "int add(int a, int b) { return a + b; }\n"
CASES = {
    "hello": ('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }', "", "pass", "run"),
    "no_entry_point": (ADD, "", "pass", "compile"),
    "right_answer": (ADD, "int main(void) { return add(1, 2) != 3; }", "pass", "run"),
    "wrong_answer": (ADD, "int main(void) { return add(1, 2) != 4; }", "logic", "run"),
    "tests_without_return": (ADD, "int main() { if (add(1, 2) != 3) return 1; }", "pass", "run"),
    "both_have_main": (f"{ADD}int main() {{ return 9; }}", "int main() { return add(1, 2) != 3; }", "pass", "run"),
    "assertion": (ADD, "#include <assert.h>\nint main() { assert(add(1, 2) == 4); }", "logic", "run"),
    "grammar": ("int f() { return 1 }", "", "syntax", "compile"),
    "type": ("struct s { int x; }; int f(struct s a) { return a + 1; }", "", "type", "compile"),
    "undeclared": ("int f() { return y; }", "", "name", "compile"),
    "undefined_reference": ("int main() { foo(); }", "", "name", "compile"),
    "missing_header": ("#include <no_such.h>", "", "import", "compile"),
    "main_in_a_comment": ("// int main() {}\nint f;", "", "pass", "compile"),
    "exit_code": ("int main() { return 3; }", "", "runtime", "run"),
    "segfault": ("int main() { int *volatile p = 0; *p = 1; }", "", "runtime", "run"),
    "division": ("int main() { volatile int z = 0; return 7 / z; }", "", "runtime", "run"),
    "leaves_before_tests": (
        "#include <stdlib.h>\n__attribute__((constructor)) void f() { exit(0); }", "int main() { return 1; }",
        "runtime", "run"),
    "mathematics": ("#include <math.h>\nint main(int c) { return (int)sqrt(c - 1.0); }", "", "pass", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("c", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("c", "int main() { for (;;); }", timeout_seconds=0.5).verdict == "timeout"


def test_touching_too_much_memory_is_seen(run: Run) -> None:
    child = "char *p = malloc(1 << 27); memset(p, 1, 1 << 27); pause();"
    loop = f"for (;;) {{ if (fork() == 0) {{ {child} }} usleep(20000); }}"
    code = f"#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\nint main() {{ {loop} }}"
    assert run("c", code).verdict == "memory"


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/stdin", "main.c"])
def test_including_what_never_ends_fails(run: Run, source: str) -> None:
    verdict = run("c", f'#include "{source}"\nint main() {{ return x; }}')
    assert verdict.phase == "compile"
    assert verdict.verdict in ("compile_limit", "syntax", "name")
