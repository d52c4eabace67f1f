"""Rust: rustc alone, no cargo, so that no build script and no procedural macro can run. Pure but for `library`."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import Any, Final

from soda_jobs.sandbox.diagnostics import COMMON, Reading, Rules, by_exit, first_word
from soda_jobs.sandbox.source import Source, blanked, tests_leave_by_themselves
from soda_jobs.sandbox.tools import path_of

# A quote opens a character only where one is closed after it: elsewhere it is a lifetime.
_TOKENS: Final = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)|\br(#*)".*?(?:"\1|\Z)|"(?:\\.|[^"\\])*"?|'(?:\\[^\n']{1,10}|[^'\\\n])'""",
    re.DOTALL,
)
_MAIN: Final = re.compile(r"^([ \t]*(?:pub\s+)?(?:async\s+)?fn\s+)main\s*\(", re.MULTILINE)
_TEST: Final = re.compile(r"#\[\s*test\s*\]")
_USE: Final = re.compile(r"^use\s[^;{}]*(?:\{[^;]*\})?[^;]*;[ \t]*$", re.MULTILINE)
_INNER: Final = re.compile(r"^#!\[[^\n]*\][ \t]*$", re.MULTILINE)
_NO_UNSAFE: Final = re.compile(r"#!\[\s*(?:forbid|deny)\s*\(\s*unsafe_code\s*\)\s*\]")
# The linker's --wrap=main calls this instead of main, for a test harness as for a `main` of the tests.
_PROOF: Final = (
    'extern "C" { fn __real_main(count: i32, words: *const *const u8) -> i32; '
    '#[link_name = "write"] fn __soda_write(to: i32, text: *const u8, count: usize) -> isize; }\n'
    '#[no_mangle] pub extern "C" fn __wrap_main(count: i32, words: *const *const u8) -> i32 { unsafe { '
    "let code = __real_main(count, words); "
    'if code == 0 && __soda_write(3, b".".as_ptr(), 1) < 0 { 1 } else { code } } }\n'
)
_FLAGS: Final = ("--edition=2021", "--error-format=json", "-Awarnings", "-Cdebuginfo=0", "-Copt-level=0")
_SPEED: Final = ("-Cprefer-dynamic", "-Ccodegen-units=1")  # the standard library is a shared one: less to link


def join(code: str, tests: str) -> Source:
    """Code, then tests. With `#[test]` functions rustc's own harness runs them; else the tests' `main` rules."""
    if not tests:
        return Source({"main.rs": code}, "main.rs", has_entry=_has(_MAIN, code))
    known = set(_USE.findall(code))
    heads = "".join(f"{line} " for line in dict.fromkeys(_INNER.findall(tests)))
    tests = _USE.sub(lambda found: "" if found[0] in known else found[0], _INNER.sub("", tests))
    code = _NO_UNSAFE.sub("", code)
    if _has(_MAIN, code) and _has(_MAIN, tests):
        code = _MAIN.sub(r"\1program_main(", code)
    text = f"{heads}{code}\n\n{tests}\n"
    has_entry = has_tests(text) or _has(_MAIN, text)
    if not has_entry or tests_leave_by_themselves(tests):
        return Source({"main.rs": text}, "main.rs", has_entry)
    return Source({"main.rs": f"{text}\n{_PROOF}"}, "main.rs", has_proof=True)


def has_tests(text: str) -> bool:
    return _has(_TEST, text)


def _has(pattern: re.Pattern[str], text: str) -> bool:
    return bool(pattern.search(blanked(_TOKENS, text)))


def compile_(joined: Source) -> tuple[tuple[str, ...], ...]:
    start = (path_of("rustc"), *_FLAGS, "--crate-name=program")
    if not joined.has_entry:
        return ((*start, "--crate-type=lib", "--emit=metadata", "main.rs"),)
    link = (f"-Clinker={path_of('gcc')}", f"-Clink-arg=-Wl,-rpath,{library()}")
    wrap = ("-Clink-arg=-Wl,--wrap=main",) if joined.has_proof else ()
    harness = ("--test",) if has_tests(joined.files["main.rs"]) else ("--crate-type=bin",)
    return ((*start, *_SPEED, *link, *wrap, *harness, "-o", "program", "main.rs"),)


def run(joined: Source, memory_mib: int) -> tuple[str, ...]:
    in_order = ("--nocapture", "--test-threads=1") if has_tests(joined.files["main.rs"]) else ()
    return ("./program", *in_order)


@cache
def library() -> str:
    """The folder of the standard library that programs load."""
    argv = [path_of("rustc"), "--print", "target-libdir"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


# Files read while compiling are files of the sandbox: nothing of them belongs in a program.
_READS_FILE: Final = re.compile(r"\binclude_(?:bytes|str)\b|\binclude\s*!|#\s*\[\s*path\b")


def refuse(joined: Source) -> Reading | None:
    bare = blanked(_TOKENS, joined.files["main.rs"])
    found = _READS_FILE.search(bare)
    if found is None:
        return None
    line = bare.count("\n", 0, found.start()) + 1
    return Reading("import", f"main.rs:{line}: there are no files to include", "compile")


_CODES: Final[Rules] = (
    (r"E0432|E0433|E0463|E0583", "import"),  # an unresolved import, crate or module file
    (
        r"E0412|E0425|E0405|E0407|E0408|E0422|E0423|E0424|E0426|E0531|E0560|E0574|E0576|E0599|E0609|E0603|E0616",
        "name",
    ),
    (r"E0428|E0252|E0255|E0201|E0415|E0416|E0124|E0592|E0601", "name"),
    (r"E0275|E0320|E0391", "compile_limit"),  # a recursion that does not end
    (r"E0586|E0585|E0704|E0753|E0765|E0766|E0758|E0762|E0763", "syntax"),
    (r"E\d{4}", "type"),
)
_WORDS: Final[Rules] = (
    (
        r"recursion limit|constant evaluation is taking|long_running_const_eval|too big for the",
        "compile_limit",
    ),
    (r"cannot find|undefined symbol|undefined reference|linking with", "name"),
    (r"this (?:arithmetic )?operation will panic|literal out of range|mismatched|type", "type"),
)


def read_compile(stderr: str) -> Reading:
    """The first error that rustc reports as JSON; the summary lines have no code and no place."""
    errors = [item for line in stderr.splitlines() if (item := _item(line)).get("level") == "error"]
    if not errors:
        first = (stderr.strip().splitlines() or ["the compiler gave no reason"])[0]
        return Reading("compile_limit" if "overflowed its stack" in stderr else "syntax", first)
    error = errors[0]
    message, code = str(error.get("message", "")), _code(error)
    is_code = code.startswith("E")
    word = first_word(_CODES, code, "type") if is_code else first_word(_WORDS, f"{code} {message}", "syntax")
    return Reading(word, f"{_place(error)}{f'{code}: ' if code else ''}{message}")


def _item(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _code(error: dict[str, Any]) -> str:
    code = error.get("code")
    return str(code.get("code", "")) if isinstance(code, dict) else ""


def _place(error: dict[str, Any]) -> str:
    spans = error.get("spans")
    first = next((span for span in spans if isinstance(span, dict)), {}) if isinstance(spans, list) else {}
    return f"{first['file_name']}:{first['line_start']}: " if {"file_name", "line_start"} <= set(first) else ""


_PANIC: Final = re.compile(
    r"^thread '.*?'(?: \(\d+\))? panicked at [^\n]*:\n(.*(?:\n {1,2}(?:left|right): .*)*)", re.MULTILINE
)
_RUN: Final[Rules] = (
    (r"^assertion .*failed|test panicked as expected|test did not panic", "logic"),
    (r"memory allocation of \d+ bytes failed|capacity overflow", "memory"),
    *COMMON,
)


def read_run(stderr: str, code: int, has_tests: bool) -> Reading:
    found = _PANIC.search(stderr)
    if found is not None:
        text = " ".join(found[1].split())
        default = "logic" if has_tests and "did not panic" in stderr else "runtime"
        return Reading(first_word(_RUN, text, default), text)
    for pattern, word in (
        (r"memory allocation of \d+ bytes failed", "memory"),
        (r"has overflowed its stack", "runtime"),
    ):
        if line := re.search(pattern, stderr):
            return Reading(word, line[0])
    return by_exit(stderr, code, has_tests)
