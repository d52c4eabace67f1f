"""What hostile programs try while they are compiled: compilers meet limits of their own, the next program none."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soda_jobs.sandbox import golang, run, tools
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.walls import Walls

Judge = Callable[..., Verdict]


@pytest.fixture(scope="module")
def walls() -> Walls:
    return run.find_walls(92)


@pytest.fixture
def judge(walls: Walls, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """One program's verdict, where compilers may use 3 seconds and 768 MiB: bombs stay small."""
    monkeypatch.setattr(run, "COMPILE_SECONDS", 3.0)
    monkeypatch.setattr(run, "COMPILE_MIB", 768)
    monkeypatch.setattr(run, "SECONDS", 3.0)

    def judge_one(language: str, code: str, tests: str = "", **settings: Any) -> Verdict:
        missing = [tool for tool in LANGUAGES[language].tools if tools.find(tool) is None]
        if missing:
            pytest.skip(f"{missing[0]} is not installed on this machine")
        return run.execute(Program("a", language, code, tests, **settings), walls).verdict

    return judge_one


@pytest.fixture(scope="module", autouse=True)
def _close_services() -> Iterator[None]:
    yield
    for one in run._services.values():
        one.close()
    run._services.clear()  # programs that hang one after the other have it given up for good


MACROS = "#define a0 1+1\n" + "".join(f"#define a{n} a{n - 1}+a{n - 1}\n" for n in range(1, 31))
CASES = {
    "c_zero": ("c", '#include "/dev/zero"\nint main() {}', "compile_limit"),
    "c_random": ("c", '#include "/dev/urandom"\nint main() { return 0; }', ("compile_limit", "syntax")),
    "c_input": ("c", '#include "/dev/stdin"\nint main() { return x; }', "name"),
    "c_itself": ("c", "#include __FILE__\nint main() {}", "compile_limit"),
    "c_array": ("c", "char a[10LL << 30] = {1};\nint main() {}", "compile_limit"),
    "c_repeated": ("c", '__asm__(".rept 1000000000\\n.quad 1\\n.endr");\nint main() {}', "compile_limit"),
    "c_macros": ("c", f"{MACROS}int main() {{ return a30; }}", "compile_limit"),
    "c_environment": ("c", '#include "/proc/self/environ"\nint main() { return x; }', "name"),
    "c_memory_of_the_compiler": ("c", '#include "/proc/self/mem"\nint main() { return x; }', "name"),
    "c_many_errors": ("c", "int main() { " + "".join(f"x{n}; " for n in range(2000)) + "}", "name"),
    "cpp_templates": (
        "cpp", "template <int N> struct A { static const int v = A<N + 1>::v; };\nint main() { return A<0>::v; }",
        "compile_limit"),
    "cpp_wide_templates": (
        "cpp", "template <int N, class T> struct A { typename A<N - 1, int[N]>::t a; "
        "typename A<N - 1, char[N]>::t b; "
        "using t = A; };\ntemplate <class T> struct A<0, T> { using t = int; };\nint main() { A<400, int> a; }",
        "compile_limit"),
    "cpp_constexpr": (
        "cpp", "constexpr int f() { for (;;) {} return 1; }\nconstexpr int x = f();\nint main() {}",
        "compile_limit"),
    "cpp_constexpr_recursion": (
        "cpp", "constexpr int f(int n) { return f(n + 1) + 1; }\nconstexpr int x = f(0);\nint main() {}",
        "compile_limit"),
    "java_generics": (
        "java",
        "import java.util.Map;\nclass A { static <T> Map<T, T> p(T a) { return null; }\n"
        "static void f() { var x0 = p(1);\n"
        + "".join(f"var x{n} = p(x{n - 1});\n" for n in range(1, 26)) + "} }",
        "compile_limit"),
    "java_types": (
        "java", "class N<Z> {} class C<X> extends N<N<? super C<C<X>>>> "
        "{ N<? super C<Byte>> cast(C<Byte> c) { return c; } }", ("type", "compile_limit")),
    "java_depth": ("java", f"class A {{ int a = {'(' * 20000}1{')' * 20000}; }}", "compile_limit"),
    "java_constants": ("java", 'class A { static final String a = "' + "x" * 70000 + '"; }', "compile_limit"),
    "typescript_recursion": (
        "typescript", "type R<T> = T extends number ? R<[T]> : R<R<T[]>>;\nlet x: R<string> = 1;",
        "compile_limit"),
    "typescript_unions": (
        "typescript", "type D = '0'|'1'|'2'|'3'|'4'|'5'|'6'|'7'|'8'|'9';\n"
        "let x: `${D}${D}${D}${D}${D}${D}` = '0';",
        "compile_limit"),
    "typescript_depth": ("typescript", f"const a = {'(' * 30000}1{')' * 30000};", "compile_limit"),
    "go_cgo": (
        "go", 'package main\n\n// #include <stdlib.h>\nimport "C"\n\nfunc main() { C.exit(0) }\n', "import"),
    "go_embed": (
        "go", 'package main\n\nimport _ "embed"\n\n//go:embed main.go\nvar text string\n\nfunc main() {}\n',
        "import"),
    "go_embedded_file": (
        "go", 'package main\n\nimport "embed"\n\n//go:embed /etc/passwd\nvar files embed.FS\n\nfunc main() {}\n',
        "import"),
    "go_linkname": (
        "go", 'package main\n\nimport _ "unsafe"\n\n//go:linkname exit runtime.exit\nfunc exit(code int32)\n\n'
        "func main() { exit(0) }\n", "import"),
    "go_assembly": ("go", "package main\n\nfunc exit()\n\nfunc main() { exit() }\n", ("name", "type", "syntax")),
    "go_array": (
        "go", "package main\n\nvar a [10 << 30]byte = [10 << 30]byte{1}\n\nfunc main() {}\n", "compile_limit"),
    "go_constant": ("go", "package main\n\nconst a = 1 << 100000\n\nfunc main() {}\n", ("type", "compile_limit")),
    "rust_environment": (
        "rust", 'const A: &[u8] = include_bytes!("/proc/self/environ");\nfn main() {}', "import"),
    "rust_tests": ("rust", 'const A: &str = include_str!("main.rs");\nfn main() {}', "import"),
    "rust_include": ("rust", 'include!("/dev/zero");\nfn main() {}', "import"),
    "rust_module": ("rust", '#[path = "/dev/zero"] mod a;\nfn main() {}', "import"),
    "rust_constant": (
        "rust", "const fn f() -> u64 { let mut i = 0; while i < u64::MAX { i += 1; } i }\nconst A: u64 = f();\n"
        'fn main() { println!("{}", A); }', "compile_limit"),
    "rust_macros": ("rust", "macro_rules! a { ($($t:tt)*) => { a!($($t)* $($t)*) } }\na!(x y);\nfn main() {}",
                    "compile_limit"),
    "rust_types": (
        "rust", "struct A<X>(X);\nfn f<X>(x: X) { f(A(x)) }\nfn main() { f(1) }", "compile_limit"),
    "rust_array": ("rust", "static A: [u8; 10 << 30] = [1; 10 << 30];\nfn main() { println!(\"{}\", A[1]); }",
                   "compile_limit"),
    "rust_procedural": ("rust", "extern crate proc_macro;\n#[proc_macro]\npub fn a(i: proc_macro::TokenStream) "
                        "-> proc_macro::TokenStream { i }\nfn main() {}", ("type", "syntax")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_meets_its_limit_or_its_error(judge: Judge, case: str) -> None:
    language, code, words = CASES[case]
    verdict = judge(language, code)
    expected = (words,) if isinstance(words, str) else words
    assert verdict.phase == "compile", verdict
    assert verdict.verdict in expected, verdict.detail


def test_a_compiler_that_hung_is_replaced(judge: Judge) -> None:
    honest = "public class Main { public static void main(String[] a) { } }"
    assert judge("java", honest).verdict == "pass"
    for _ in range(2):
        assert judge("java", CASES["java_generics"][1]).verdict == "compile_limit"
        assert judge("java", honest).verdict == "pass"


def test_the_cache_of_go_stays_as_it_was(judge: Judge) -> None:
    code = (
        'package main\n\nimport "os"\n\nfunc main() {\n'
        f'\tif os.WriteFile("{golang.cache_folder()}/x", nil, 0o644) == nil {{ os.Exit(1) }}\n'
        f'\tif os.RemoveAll("{golang.cache_folder()}") == nil {{ os.Exit(2) }}\n}}\n'
    )
    verdict = judge("go", code)
    assert verdict.verdict == "pass", verdict.detail
    assert judge("go", "package main\n\nfunc main() {}\n").verdict == "pass"


SHOWS = (
    '#include <stdio.h>\n__asm__(".section .rodata\\n.global start\\n.global end\\n'
    'start: .incbin \\"/etc/passwd\\"\\n'
    'end: .byte 0\\n.text");\nextern const char start[], end[];\n'
    "int main() { fwrite(start, 1, end - start, stdout); }"
)


def test_a_file_taken_in_by_the_assembler_is_the_jails_own(judge: Judge, walls: Walls) -> None:
    if not walls.namespaces:
        pytest.skip(f"this machine allows no namespaces: {walls.missing}")
    verdict = judge("c", SHOWS, returns="stdout")
    assert verdict.verdict == "pass", verdict.detail
    assert b64decode(verdict.returned).startswith(b"program:x:1000:")


@pytest.mark.parametrize(
    "pragma", ["#pragma GCC plugin /tmp/x.so", '__attribute__((optimize("-fplugin=/tmp/x.so")))']
)
def test_no_plugin_is_loaded_at_a_programs_word(judge: Judge, pragma: str) -> None:
    verdict = judge("c", f"{pragma}\nint main() {{ return x; }}")
    assert (verdict.verdict, verdict.phase) == ("name", "compile"), verdict.detail
