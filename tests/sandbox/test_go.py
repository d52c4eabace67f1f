"""Go programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.source import go_imports, join_go
from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "package main\n\nfunc Add(a, b int) int { return a + b }\n"


def checking(check: str) -> str:
    body = f'\tif !({check}) {{\n\t\tt.Fatal("no")\n\t}}\n'
    return f'package main\n\nimport "testing"\n\nfunc TestAdd(t *testing.T) {{\n{body}}}\n'


CASES = {
    "hello": ('package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n', "", "pass", "run"),
    "no_entry_point": (ADD, "", "pass", "compile"),
    "no_package_line": ("func main() {}\n", "", "pass", "run"),
    "right_answer": (ADD, checking("Add(1, 2) == 3"), "pass", "run"),
    "wrong_answer": (ADD, checking("Add(1, 2) == 4"), "logic", "run"),
    "both_have_main": (f"{ADD}\nfunc main() {{}}\n", checking("Add(1, 2) == 3"), "pass", "run"),
    "same_import_twice": (
        'package main\n\nimport "fmt"\n\nfunc Add(a, b int) int { fmt.Println(a); return a + b }\n',
        checking("Add(1, 2) == 3").replace('"testing"', '(\n\t"fmt"\n\t"testing"\n)'), "pass", "run"),
    "grammar": ("package main\n\nfunc main( {}\n", "", "syntax", "compile"),
    "type": ('package main\n\nfunc main() { var x int = "a"; _ = x }\n', "", "type", "compile"),
    "undefined": ("package main\n\nfunc main() { foo() }\n", "", "name", "compile"),
    "unused_import": ('package main\n\nimport "os"\n\nfunc main() {}\n', "", "name", "compile"),
    "missing_package": (
        'package main\n\nimport "example.com/x"\n\nfunc main() { x.F() }\n', "", "import", "compile"),
    "panic": ("package main\n\nfunc main() { var a []int; _ = a[len(a)] }\n", "", "runtime", "run"),
    "deadlock": ("package main\n\nfunc main() { <-make(chan int) }\n", "", "runtime", "run"),
    "leaves_before_tests": (
        'package main\n\nimport "os"\n\nfunc init() { os.Exit(0) }\n', checking("false"), "runtime", "run"),
    "memory": ("package main\n\nfunc main() { var a [][]byte; for { b := make([]byte, 1<<20); for i := range b "
               "{ b[i] = 1 }; a = append(a, b) } }\n", "", "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, given, word, phase = CASES[case]
    verdict = run("go", code, given)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_the_imports_of_the_joined_file_are_all_seen() -> None:
    code = 'package main\n\nimport (\n\tm "math"\n\t"os"\n)\n\nimport "fmt"\n\nfunc F() {}\n'
    joined = join_go(code, 'import "fmt"\n\nfunc TestF(t *testing.T) {}\n')
    found = [path for _, path in go_imports(joined.files["main.go"])]
    assert found == ["math", "os", "fmt", "testing", "syscall"]
    assert go_imports(join_go('import "os"\n\nfunc main() {}\n', "").files["main.go"]) == [("", "os")]


def test_an_error_keeps_its_line(run: Run) -> None:
    assert run("go", "package main\n\nfunc F() { x }\n", "func main() {}\n").detail == "main.go:3: undefined: x"
    assert run("go", "\n\nfunc F() { x }\n").detail == "main.go:3: undefined: x"


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("go", "package main\n\nfunc main() { for { } }\n", timeout_seconds=0.5).verdict == "timeout"
