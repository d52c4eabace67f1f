"""Java programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

SUM = "new Solution().add(1, 2)"
ADD = "class Solution { int add(int a, int b) { return a + b; } }\n"


def program(body: str) -> str:
    return f"public class Thing {{ public static void main(String[] words) throws Exception {{ {body} }} }}"


def checking(check: str) -> str:
    body = f"if (!({check})) throw new AssertionError();"
    return f"public class Main {{ public static void main(String[] words) {{ {body} }} }}"


CASES = {
    "hello": (program('System.out.println("hello");'), "", "pass", "run"),
    "no_entry_point": (ADD, "", "pass", "compile"),
    "right_answer": (ADD, checking(f"{SUM} == 3"), "pass", "run"),
    "wrong_answer": (ADD, checking(f"{SUM} == 4"), "logic", "run"),
    "both_public": (f"public {ADD}", checking(f"{SUM} == 3"), "pass", "run"),
    "assert_statement": (
        ADD, "class T { public static void main(String[] a) { assert new Solution().add(1, 2) == 4; } }",
        "logic", "run"),
    "imports_in_tests": (
        ADD, f"import java.util.List;\n{checking(f'List.of(3).contains({SUM})')}", "pass", "run"),
    "package": (f"package a.b;\n{program('')}", "", "pass", "run"),
    "grammar": ("class A { int f( { } }", "", "syntax", "compile"),
    "type": ('class A { int x = "a"; }', "", "type", "compile"),
    "undefined": ("class A { int f() { return y; } }", "", "name", "compile"),
    "missing_package": ("import org.none.Such;\nclass A {}", "", "import", "compile"),
    "exception": (program("int[] a = {}; a[0] = 1;"), "", "runtime", "run"),
    "cast": (program('Object o = "a"; Integer i = (Integer) o;'), "", "type", "run"),
    "exit_code": (program("System.exit(2);"), "", "runtime", "run"),
    "leaves_before_tests": (
        "class Solution { static { System.exit(0); } int f; }", checking("new Solution().f == 0"),
        "runtime", "run"),
    "closed_input": (program("new java.util.Scanner(System.in).nextLine();"), "", "environment", "run"),
    "memory": (program("var a = new java.util.ArrayList<int[]>(); while (true) a.add(new int[1 << 20]);"), "",
               "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, given, word, phase = CASES[case]
    verdict = run("java", code, given)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("java", program("while (true) {}"), timeout_seconds=1).verdict == "timeout"
