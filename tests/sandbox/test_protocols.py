"""A program that passes has solved its task: cheats of section after section, judged outside or by a control."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.oracle.protocol import Proven, plan, prove
from soda_jobs.sandbox.types import Program, Verdict

Prove = Callable[..., Proven]

TESTS = """
def check(candidate):
    assert candidate([1, 2]) == 3
    assert candidate([]) == 0
    assert candidate([5]) == 5
    assert candidate([1, 2, 3]) == 6
check(total)
"""
CASES = """
import unittest
class Test(unittest.TestCase):
    def test_some(self):
        self.assertEqual(total([1, 2]), 3)
        self.assertEqual(total([1, 2, 3]), 6)
    def test_none(self):
        self.assertEqual(total([]), 0)
unittest.main()
"""


@pytest.fixture
def proven(server: dict[str, Any]) -> Prove:
    def one(language: str, code: str, tests: str, way: Any = "observe", **settings: Any) -> Proven:
        if server["languages"][language] is None:
            pytest.skip(f"no toolchain for {language} on this machine")
        program = Program("p", language, code, tests, **{"timeout_seconds": 5.0, "memory_mib": 512, **settings})

        async def run(programs: list[Program]) -> dict[str, Verdict]:
            return await run_programs(server["url"], programs)

        return asyncio.run(prove([program], run, way))["p"]

    return one


# -- Python, judged outside ---------------------------------------------------------------------------------------

HONEST = {
    "plain": "def total(x): return sum(x)",
    "printing": "def total(x):\n    print('passed' * 9999)\n    return sum(x)",
    "a function made on the fly": "total = lambda x: sum(x)",
    "with a main of its own": "def total(x): return sum(x)\nif __name__ == '__main__':\n    total(input())",
    "leaving threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "def total(x): return sum(x)"
    ),
    "shadowing what the driver uses": (
        "import json, struct, builtins\nlen = isinstance = encode = struct.pack = json.dumps = None\n"
        "builtins.len = builtins.list = builtins.getattr = None\ndef total(x): return sum(x)"
    ),
    "closing its output": "import sys\nsys.stdout.close(); sys.stderr.close()\ndef total(x): return sum(x)",
}


@pytest.mark.parametrize("code", HONEST.values(), ids=HONEST)
def test_honest_programs_pass(code: str, proven: Prove) -> None:
    found = proven("python", code, TESTS)
    assert (found.verdict.verdict, found.proof) == ("pass", "observed"), found


EQUALS_ALL = "class A:\n    def __eq__(self, o): return True\n    def __sub__(self, o): return self\n"
CHEATS = {
    "wrong": ("def total(x): return 3", "logic"),
    "wrong type": ("def total(x): return str(sum(x))", "logic"),
    "1 exits on import": ("import sys; sys.exit(0)", "runtime"),
    "2 exits inside": ("import os\ndef total(x): return 3 if x == [1, 2] else os._exit(0)", "runtime"),
    "2 exits politely": ("def total(x): return 3 if x == [1, 2] else exit()", "runtime"),
    "3 equals all": (EQUALS_ALL + "def total(x): return A()", "logic"),
    "4 a lying number": ("class A(int):\n    __eq__ = lambda s, o: True\ndef total(x): return A(7)", "logic"),
    "4 a lying list": (
        "class A(list):\n    __eq__ = lambda s, o: True\n    __len__ = lambda s: 3\ndef total(x): return A()",
        "logic",
    ),
    "4 a lying class": (
        "class A:\n    __class__ = int\n    __eq__ = lambda s, o: True\ndef total(x): return A()",
        "logic",
    ),
    "5 walks frames": (
        "import sys\ndef total(x):\n    f = sys._getframe()\n    while f:\n"
        "        f.f_locals.update(result='passed', value=3); f = f.f_back\n    return 'passed'",
        "logic",
    ),
    "6 looks for what is expected": (
        "import gc, re\ndef total(x):\n    text = open('main.py').read() + str(gc.get_objects()[:9])\n"
        "    found = re.search(r'total\\(\\[1, 2\\]\\) == (\\d)', text)\n"
        "    return int(found[1]) if found else -1",
        "logic",
    ),
    "7 patches assertions": (
        "import builtins, sys\nclass E(Exception): pass\nbuiltins.AssertionError = E\n"
        "sys.excepthook = lambda *a: sys.exit(0)\ndef total(x): return -1",
        "logic",
    ),
    "8 leaves at the end": ("import atexit, os\natexit.register(os._exit, 0)\ndef total(x): return -1", "logic"),
    "9 starts again without asserts": (
        "import os, sys\nif not sys.flags.optimize:\n    os.execv(sys.executable, ['python', '-O', 'main.py'])\n"
        "def total(x): return -1",
        "logic",
    ),
    "24 a pickle": (
        "import os\nclass A:\n    def __reduce__(self): return os.system, ('touch /tmp/escaped',)\n"
        "def total(x): return A()",
        "logic",
    ),
    "25 not a number": ("def total(x): return float('nan')", "logic"),
    "25 a huge number": ("def total(x): return 10 ** 5000", "logic"),
    "25 deep": ("def total(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a", "logic"),
    "25 in a circle": ("def total(x):\n    a = []\n    a.append(a)\n    return a", "logic"),
    "25 exploding": ("def total(x):\n    a = []\n    for _ in range(99): a = [a, a]\n    return a", None),
    "27 closes everything": ("import os\nos.closerange(0, 256)\ndef total(x): return sum(x)", "runtime"),
    "27 takes the channel": ("import os\nos.dup2(1, 3)\ndef total(x): return sum(x)", "runtime"),
    "28 replaces the driver's parts": (
        "import struct, __main__\n__main__.encode = lambda *a: b'N'\ndef total(x): return -1",
        None,
    ),
    "29 never ends": ("import re\ndef total(x): return re.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    "29 ends late": ("def total(x):\n    while len(x) == 1: pass\n    return sum(x)", "timeout"),
    "29 fails before it hangs": ("def total(x):\n    while len(x) == 1: pass\n    return -1", "logic"),
    "no such name": ("def sum_of(x): return sum(x)", "name"),
    "a syntax error": ("def total(x: return sum(x)", "syntax"),
    "an exception": ("def total(x): return x / 2", "type"),
    "a missing module": ("import nothing_like_it\ndef total(x): return sum(x)", "import"),
    "memory": ("def total(x): return bytearray(10 ** 12)", "memory"),
}


@pytest.mark.parametrize(("code", "word"), CHEATS.values(), ids=CHEATS)
def test_cheats_do_not_pass_when_judged_outside(code: str, word: str | None, proven: Prove) -> None:
    found = proven("python", code, TESTS)
    assert found.verdict.verdict != "pass"
    assert word is None or found.verdict.verdict == word, found
    assert found.verdict.returned == ""


FORGERIES = {
    "11 a daemon that writes": (
        "import os\nready, tell = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
        "        os.write(3, b'more'); os.write(tell, b'.')\nos.read(ready, 1)\ndef total(x): return sum(x)"
    ),
    "writes after the end": (
        "import os, __main__\nleave = __main__._exit\n"
        "__main__._exit = lambda code: (os.write(3, b'more'), leave(code))\ndef total(x): return sum(x)"
    ),
    "writes nonsense": "import os\nos.write(3, b'\\x01\\x00\\x00\\x00?')\ndef total(x): return sum(x)",
    "answers twice": (
        "import __main__\ns = __main__.Driver._say\ndef say(self, m): s(self, m); s(self, m)\n"
        "__main__.Driver._say = say\ndef total(x): return sum(x)"
    ),
}


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_what_writes_where_only_the_driver_may_has_tampered(code: str, proven: Prove) -> None:
    assert proven("python", code, TESTS).verdict.verdict == "tampered"


def test_answers_from_a_taken_driver_are_still_only_answers(proven: Prove) -> None:
    code = "import __main__\n__main__.Driver._act = lambda *a: 'passed'\ndef total(x): return -1"
    found = proven("python", code, TESTS)
    assert (found.verdict.verdict, found.verdict.detail) == (
        "logic",
        "AssertionError: candidate([1, 2]) == 3: left is 'passed'",
    )


def test_a_wrong_guess_costs_another_run(proven: Prove) -> None:
    tests = "x = total([1])\nif x > 0:\n    assert total([x, 1]) == 2\n"
    tests += "try:\n    total(5)\n    assert False\nexcept TypeError:\n    assert total([2, 2]) == 4"
    assert proven("python", HONEST["plain"], tests).verdict.verdict == "pass"
    assert proven("python", "def total(x): return 1", tests).verdict.verdict == "logic"


def test_the_same_program_has_the_same_verdict(proven: Prove) -> None:
    for code in ("def total(x): return 3", EQUALS_ALL + "def total(x): return A()"):
        first, second = (proven("python", code, TESTS).verdict for _ in range(2))
        assert (first.verdict, first.detail) == (second.verdict, second.detail)


# -- standard input and output ------------------------------------------------------------------------------------

ADD = {
    "python": "a, b = map(int, input().split())\nprint(a + b)",
    "c": '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }',
    "javascript": (
        "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number)\nconsole.log(a + b)"
    ),
}
SUITE = json.dumps({"cases": [{"stdin": "1 2\n", "stdout": "3"}, {"stdin": "4 5\n", "stdout": "9\n"}]})


@pytest.mark.parametrize("language", ADD)
def test_what_a_program_prints_is_compared_outside(language: str, proven: Prove) -> None:
    found = proven(language, ADD[language], SUITE)
    assert (found.verdict.verdict, found.proof, found.verdict.returned) == ("pass", "observed", ""), found


def test_each_case_is_a_run_of_its_own(proven: Prove) -> None:
    found = proven("python", "print(3)", SUITE).verdict
    assert (found.verdict, found.detail) == ("logic", "case 2 of 2: it printed '3\\n' and not '9\\n'")
    assert proven("python", "import sys; sys.exit(0)", SUITE).verdict.verdict == "logic"
    assert proven("python", "input(); print(3); raise KeyError", SUITE).verdict.verdict == "runtime"
    assert proven("python", "while True: pass", SUITE, timeout_seconds=1.0).verdict.verdict == "timeout"


def test_bytes_that_are_no_text_are_compared_too(proven: Prove) -> None:
    suite = json.dumps({"cases": [{"stdin": "", "stdout": "a"}]})
    assert proven("python", "import os; os.write(1, b'\\xff\\x00')", suite).verdict.verdict == "logic"


# -- with tests beside the program, and a control -----------------------------------------------------------------

PYTHON = {
    "exits on import": ("import os; os._exit(0)", "runtime"),
    "equals all": (EQUALS_ALL + "def total(x): return A()", "tampered"),
    "7 patches unittest": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef total(x): return -1",
        "tampered",
    ),
    "8 leaves at the end": (
        "import atexit, os\natexit.register(os._exit, 0)\ndef total(x): return -1",
        "tampered",
    ),
    "7 a hook that hides": (
        "import builtins, unittest\nunittest.main = lambda *a, **k: None\ndef total(x): return -1",
        "tampered",
    ),
    "wrong": ("def total(x): return 3", "logic"),
    "right": ("def total(x): return sum(x)", "pass"),
}


@pytest.mark.parametrize(("code", "word"), PYTHON.values(), ids=PYTHON)
def test_tests_that_cannot_be_split_are_controlled(code: str, word: str, proven: Prove) -> None:
    found = proven("python", code, CASES)
    assert (found.verdict.verdict, found.proof) == (word, "controlled"), found


C_TESTS = "#include <assert.h>\nint main(void) {\n    assert(add(1, 2) == 3);\n    assert(add(4, 5) == 9);\n}"
CPP_TESTS = (
    "#undef NDEBUG\n#include <cassert>\nint main() {\n    assert(add(1, 2) == 3);\n    assert (add(4, 5)==9);\n}"
)
JAVA_TESTS = """public class Main {
    public static void main(String[] args) {
        Solution s = new Solution();
        java.util.List<Boolean> correct = Arrays.asList(
            Objects.equals(s.add(1, 2), 3),
            Objects.equals(s.add(4, 5), 9)
        );
        if (correct.contains(false)) { throw new AssertionError(); }
    }
}"""
JS_TESTS = "const test = () => {\n  console.assert(add(1, 2) === 3)\n  console.assert(add(4, 5) === 9)\n}\ntest()"
JS_MODULE_TESTS = (
    "const assert = require('assert');\nassert.deepStrictEqual(add(1, 2), 3);\nassert.equal(add(4, 5), 9);"
)
GO_TESTS = """package main
import "testing"
func TestAdd(t *testing.T) {
	if Add(1, 2) != 3 { t.Fatal("wrong") }
	if got := Add(4, 5); got != 9 { t.Fatal("wrong") }
}"""
RUST_TESTS = """#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn adds() {
        assert_eq!(add(1, 2), 3);
        assert!(add(4, 5) == 9);
    }
}"""
JAVA_CODE = "import java.util.*;\nclass Solution {{ {0} Object add(int a, int b) {{ {1} }} }}"
JAVA_DOT = 'try (var f = new java.io.FileOutputStream("/proc/self/fd/3")) { f.write(46); } catch (Exception e) { }'
RIGHT = {
    "c": ("int add(int a, int b) { return a + b; }", C_TESTS),
    "cpp": ("int add(int a, int b) { return a + b; }", CPP_TESTS),
    "java": (JAVA_CODE.format("", "return a + b;"), JAVA_TESTS),
    "javascript": ("const add = (a, b) => a + b", JS_TESTS),
    "typescript": ("const add = (a: number, b: number): number => a + b", JS_TESTS),
    "go": ("package main\nfunc Add(a, b int) int { return a + b }", GO_TESTS),
    "rust": ("fn add(a: i32, b: i32) -> i32 { a + b }", RUST_TESTS),
}


@pytest.mark.parametrize("language", RIGHT)
def test_a_right_program_passes_its_tests_and_fails_the_control(language: str, proven: Prove) -> None:
    found = proven(language, *RIGHT[language])
    assert (found.verdict.verdict, found.proof) == ("pass", "controlled"), found


CONTROLLED = {
    "30 leaves before main": (
        "c",
        '#include <unistd.h>\n__attribute__((constructor)) static void go(void) { write(3, ".", 1); _exit(0); }\n'
        "int add(int a, int b) { return 0; }",
        C_TESTS,
    ),
    "30 jumps out": (
        "c",
        '#include <unistd.h>\nint add(int a, int b) { write(3, ".", 1); _exit(0); }',
        C_TESTS,
    ),
    "31 no assertions": ("c", "#define NDEBUG\nint add(int a, int b) { return 0; }", C_TESTS),
    "32 its own abort": (
        "c",
        "#include <unistd.h>\nvoid __assert_fail(const char *a, const char *b, unsigned c, const char *d) "
        '{ write(3, ".", 1); _exit(0); }\nint add(int a, int b) { return 0; }',
        C_TESTS,
    ),
    "31 equality of its own": (
        "cpp",
        "struct A {}; bool operator==(A, int) { return true; }\nA add(int, int) { return {}; }",
        CPP_TESTS,
    ),
    "31 a terminate handler": (
        "cpp",
        '#include <csignal>\n#include <unistd.h>\nstatic void out(int) { (void)!write(3, ".", 1); _exit(0); }\n'
        "int add(int, int) { std::signal(SIGABRT, out); return 0; }",
        CPP_TESTS,
    ),
    "40 halts": (
        "java",
        JAVA_CODE.format(f"static {{ {JAVA_DOT} Runtime.getRuntime().halt(0); }}", "return 0;"),
        JAVA_TESTS,
    ),
    "42 a shutdown hook": (
        "java",
        JAVA_CODE.format(
            "static { Runtime.getRuntime().addShutdownHook(new Thread(() -> { "
            + JAVA_DOT
            + " Runtime.getRuntime().halt(0); })); }",
            "return 0;",
        ),
        JAVA_TESTS,
    ),
    "43 a class in the way": (
        "java",
        JAVA_CODE.format("", "return 0;").replace("java.util.*", "java.util.Arrays")
        + "\nclass Objects { static boolean equals(Object a, Object b) { return true; } }",
        JAVA_TESTS,
    ),
    "41 an object that equals all": (
        "java",
        "import java.util.*;\nclass Any { public boolean equals(Object o) { return true; } }\n"
        "class Solution { Object add(int a, int b) { return new Any(); } }",
        JAVA_TESTS,
    ),
    "46 exits": ("javascript", "require('fs').writeSync(3, '.'); process.exit(0)", JS_TESTS),
    "46 exits inside": (
        "javascript",
        "function add() { require('fs').writeSync(3, '.'); process.reallyExit(0) }",
        JS_TESTS,
    ),
    "47 patches console": ("javascript", "console.assert = () => {}; const add = () => 0", JS_TESTS),
    "47 patches assert": (
        "javascript",
        "const a = require('assert'); a.deepStrictEqual = a.equal = () => {}; const add = () => 0",
        JS_MODULE_TESTS,
    ),
    "47 patches Object.is": (
        "javascript",
        "process.on('uncaughtException', () => { require('fs').writeSync(3, '.'); process.reallyExit(0) });\n"
        "const add = () => 0",
        JS_MODULE_TESTS,
    ),
    "51 exits in init": (
        "go",
        'package main\nimport ("os"; "syscall")\nfunc init() { syscall.Write(3, []byte(".")); os.Exit(0) }\n'
        "func Add(a, b int) int { return 0 }",
        GO_TESTS,
    ),
    "54 exits": (
        "rust",
        'extern "C" { fn write(a: i32, b: *const u8, c: usize) -> isize; }\n'
        'fn add(a: i32, b: i32) -> i32 { unsafe { write(3, b".".as_ptr(), 1); } std::process::exit(0) }',
        RUST_TESTS,
    ),
}


@pytest.mark.parametrize(("language", "code", "tests"), CONTROLLED.values(), ids=CONTROLLED)
def test_a_forged_pass_is_found_by_the_control(language: str, code: str, tests: str, proven: Prove) -> None:
    found = proven(language, code, tests)
    assert (found.verdict.verdict, found.proof) == ("tampered", "controlled"), found


def test_an_object_that_is_near_every_number_is_found(proven: Prove) -> None:
    code = (
        "class Near:\n    def __sub__(self, other): return self\n    def __abs__(self): return 0.0\n"
        "def half(x): return Near()"
    )
    found = proven("python", code, "assert abs(half(1) - 0.5) < 1e-6\nassert abs(half(3) - 1.5) < 1e-6")
    assert (found.verdict.verdict, found.proof) == ("tampered", "controlled"), found
    honest = (
        "class Half:\n    def __init__(self, value): self.value = value\n"
        "    def __sub__(self, other): return self.value - other\ndef half(x): return Half(x / 2)"
    )
    found = proven("python", honest, "assert abs(half(1) - 0.5) < 1e-6\nassert abs(half(3) - 1.5) < 1e-6")
    assert (found.verdict.verdict, found.proof) == ("pass", "controlled"), found


@pytest.mark.parametrize("language", RIGHT)
def test_the_official_way_is_one_run_and_says_so(language: str, proven: Prove) -> None:
    found = proven(language, *RIGHT[language], way="official")
    assert (found.verdict.verdict, found.proof, found.reason) == ("pass", "official", "as asked")


def test_both_ways_show_where_they_disagree(proven: Prove) -> None:
    found = proven("python", EQUALS_ALL + "def total(x): return A()", TESTS, way="both")
    assert found.official is not None
    assert (found.official.verdict, found.verdict.verdict) == ("pass", "logic")


def test_tests_without_an_expectation_are_said_to_rest_on_their_word(proven: Prove) -> None:
    found = proven("c", RIGHT["c"][0], "int main(void) { return add(1, 2) - 3; }")
    assert (found.verdict.verdict, found.proof, found.reason) == (
        "pass",
        "official",
        "no expected value stands in its tests",
    )


def test_the_control_looks_like_the_run_before() -> None:
    program = Program("p", *("c", *RIGHT["c"]))
    trial = plan(program)
    first = trial.next()
    assert first == program
    trial.take(Verdict("p", "c", "pass", "run", "", 0.1))
    control = trial.next()
    assert control is not None
    assert control.tests != program.tests
    assert len(control.tests) == len(program.tests)
    assert (control.id, control.code, control.timeout_seconds) == (
        program.id,
        program.code,
        program.timeout_seconds,
    )
