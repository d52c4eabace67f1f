"""Ruby: one file, no gems but those that every Ruby brings. Pure but for `library`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Final

from soda_jobs.sandbox.diagnostics import COMMON, Reading, Rules, by_exit, first_word
from soda_jobs.sandbox.source import Source, tests_leave_by_themselves
from soda_jobs.sandbox.tools import path_of
from soda_jobs.sandbox.types import Phase

_GUARD: Final = re.compile(r"\bif\s+(?:__FILE__\s*==\s*\$(?:0|PROGRAM_NAME)|\$(?:0|PROGRAM_NAME)\s*==\s*__FILE__)")
_PROOF: Final = 'IO.for_fd(3, "w", autoclose: false).syswrite(".")\n'
_FLAGS: Final = ("--disable=gems,did_you_mean,error_highlight,rubyopt,syntax_suggest", "-W0")
_BUNDLED: Final = ("test-unit", "power_assert", "minitest")  # Ruby's own test frameworks are gems that it brings


def join(code: str, tests: str) -> Source:
    """Code, then tests. The code's own `if __FILE__ == $0` is off when there are tests."""
    if not tests:
        return Source({"main.rb": code}, "main.rb")
    code = _GUARD.sub("if false", code)
    parts = (code, _PROOF, tests) if tests_leave_by_themselves(tests) else (code, tests, _PROOF)
    return Source({"main.rb": "\n\n".join(parts)}, "main.rb", has_proof=True)


def run(joined: Source, memory_mib: int) -> tuple[str, ...]:
    return (path_of("ruby"), *_FLAGS, *(f"-I{folder}" for folder in library()), joined.main)


@cache
def library() -> tuple[str, ...]:
    """Where the bundled test frameworks lie; a Ruby without them has none to offer."""
    find = "puts Gem::Specification.find_by_name(name).full_require_paths rescue 0"
    asked = f"%w[{' '.join(_BUNDLED)}].each {{ |name| {find} }}"
    done = subprocess.run([path_of("ruby"), "-e", asked], capture_output=True, text=True, timeout=60, check=False)
    return tuple(done.stdout.split("\n")[:-1])


_LAST: Final = re.compile(r"^(?:\S+:\d+:(?:in [`'].*?': )?)?(.*) \(([A-Z]\w*(?:::\w+)*)\)$", re.MULTILINE)
_SYNTAX: Final = re.compile(
    r"^main\.rb:\d+: (?:syntax errors? found.*|syntax error.*|.*\(SyntaxError\))$", re.MULTILINE
)
_CLASSES: Final[Mapping[str, str]] = {
    "SyntaxError": "syntax",
    "NameError": "name",
    "NoMethodError": "type",
    "TypeError": "type",
    "LoadError": "import",
    "NoMemoryError": "memory",
    "EOFError": "environment",
    "SocketError": "environment",
    "Minitest::Assertion": "logic",
    "Test::Unit::AssertionFailedError": "logic",
}
_TEXT: Final[Rules] = (
    (r"^undefined (?:local variable or )?method [`'].*' for main\b", "name"),
    (r"^wrong number of arguments|^missing keyword|^unknown keyword", "type"),
    *COMMON,
)


def read_run(stderr: str, code: int, has_tests: bool) -> Reading:
    found = _SYNTAX.search(stderr)
    if found is not None and "\tfrom " not in stderr:
        return Reading("syntax", found[0], "compile")
    thrown = _LAST.search(stderr)
    if thrown is None or code < 0:
        return by_exit(stderr, code, has_tests)
    name, text = thrown[2], f"{thrown[2]}: {thrown[1]}"
    default = "logic" if name == "RuntimeError" and has_tests else "runtime"
    phase: Phase = "compile" if name == "SyntaxError" else "run"
    return Reading(first_word(_TEXT, thrown[1], _CLASSES.get(name, default)), text, phase)
