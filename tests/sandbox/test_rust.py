"""Rust programs: each kind of ending has its own word."""

from collections.abc import Callable

import pytest

from soda_jobs.sandbox.rust import join
from soda_jobs.sandbox.types import Verdict

Run = Callable[..., Verdict]

ADD = "fn add(a: i32, b: i32) -> i32 { a + b }"


def checking(check: str) -> str:
    return f"#[cfg(test)]\nmod tests {{\n    use super::*;\n    #[test]\n    fn adds() {{ {check} }}\n}}\n"


CASES = {
    "hello": ('fn main() { println!("hello"); }', "", "pass", "run"),
    "no_entry_point": (ADD, "", "pass", "compile"),
    "right_answer": (ADD, checking("assert_eq!(add(1, 2), 3);"), "pass", "run"),
    "wrong_answer": (ADD, checking("assert_eq!(add(1, 2), 4);"), "logic", "run"),
    "main_checks": (ADD, "fn main() { assert!(add(1, 2) == 3); }", "pass", "run"),
    "main_checks_and_fails": (ADD, "fn main() { assert!(add(1, 2) == 4); }", "logic", "run"),
    "both_have_main": (f"fn main() {{}}\n{ADD}", "fn main() { assert_eq!(add(1, 2), 3); }", "pass", "run"),
    "same_use_twice": (
        f"use std::collections::HashMap;\n{ADD}",
        "use std::collections::HashMap;\nfn main() { let _: HashMap<i32, i32> = HashMap::new(); }", "pass", "run"),
    "no_unsafe_code": (f"#![forbid(unsafe_code)]\n{ADD}", checking("assert_eq!(add(1, 2), 3);"), "pass", "run"),
    "should_panic": (
        ADD, checking("add(1, 2);").replace("#[test]", "#[test] #[should_panic]"), "logic", "run"),
    "grammar": ("fn main( {}", "", "syntax", "compile"),
    "type": ('fn main() { let _x: i32 = "a"; }', "", "type", "compile"),
    "borrow": ('fn main() { let a = String::new(); drop(a); println!("{a}"); }', "", "type", "compile"),
    "undefined": ("fn main() { foo(); }", "", "name", "compile"),
    "no_method": ("fn main() { 1i32.foo(); }", "", "name", "compile"),
    "missing_crate": ("use rand::Rng;\nfn main() {}", "", "import", "compile"),
    "missing_macro": ("fn main() { foo!(); }", "", "name", "compile"),
    "unstable": ("#![feature(test)]\nfn main() {}", "", "type", "compile"),
    "panic": ('fn main() { panic!("no"); }', "", "runtime", "run"),
    "bounds": ("fn main() { let a = vec![1]; let i = a.len(); println!(\"{}\", a[i]); }", "", "runtime", "run"),
    "overflow": ("fn main() { let a = vec![i32::MAX]; println!(\"{}\", a[0] + a[0]); }", "", "runtime", "run"),
    "exit_code": ("fn main() { std::process::exit(2); }", "", "runtime", "run"),
    "leaves_before_tests": (
        "fn add(_: i32, _: i32) -> i32 { std::process::exit(0) }", checking("assert_eq!(add(1, 2), 3);"),
        "runtime", "run"),
    "recursion": ("#[allow(unconditional_recursion)]\nfn f(a: [u64; 64]) -> u64 { f(a) + a[0] }\n"
                  "fn main() { println!(\"{}\", f([1; 64])); }", "", "runtime", "run"),
    "memory": ("fn main() { let mut a = vec![]; loop { a.push(vec![1u8; 1 << 20]); } }", "", "memory", "run"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ending(run: Run, case: str) -> None:
    code, tests, word, phase = CASES[case]
    verdict = run("rust", code, tests)
    assert (verdict.verdict, verdict.phase) == (word, phase), verdict.detail


def test_an_error_keeps_its_line_and_code(run: Run) -> None:
    detail = "main.rs:3: E0425: cannot find function `x` in this scope"
    assert run("rust", "\n\nfn f() { x() }\n", "fn main() {}\n").detail == detail


def test_a_panic_says_what_was_compared(run: Run) -> None:
    detail = run("rust", ADD, checking("assert_eq!(add(1, 2), 4);")).detail
    assert detail == "assertion `left == right` failed left: 3 right: 4"


def test_a_lifetime_opens_no_character() -> None:
    assert join("struct A<'a>(&'a str); impl<'a> A<'a> {}\nfn main() {}\n", "").has_entry
    assert not join("/* fn main() {} */ const A: char = '\\''; // fn main()\n", "").has_entry


def test_an_endless_loop_times_out(run: Run) -> None:
    assert run("rust", "fn main() { loop {} }", timeout_seconds=0.5).verdict == "timeout"
