"""What a program said when it failed, read: the class of an exception, an assertion, a signal. Pure.

Each reader takes standard error, the exit code and whether there were tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from soda_jobs.sandbox.diagnostics import COMMON, Reading, Rules, by_exit, first_word
from soda_jobs.sandbox.types import Phase

# -- Python -------------------------------------------------------------------------------------------------------

_PYTHON_LAST: Final = re.compile(r"^([A-Za-z_][\w.]*)(?::[ \t]?(.*))?$")
_PYTHON: Final[Mapping[str, str]] = {
    "AssertionError": "logic",
    "SyntaxError": "syntax",
    "IndentationError": "syntax",
    "TabError": "syntax",
    "TypeError": "type",
    "AttributeError": "type",
    "NameError": "name",
    "UnboundLocalError": "name",
    "ModuleNotFoundError": "import",
    "ImportError": "import",
    "MemoryError": "memory",
    "ConnectionError": "environment",
    "ConnectionRefusedError": "environment",
    "URLError": "environment",
    "gaierror": "environment",
}
_PYTHON_TEXT: Final[Rules] = (
    (r"^ImportError: cannot import name|^AttributeError: module '", "name"),
    (r"^EOFError: EOF when reading a line", "environment"),
    (r"^_ArrayMemoryError", "memory"),
    *COMMON,
)


def python_run(stderr: str, code: int, has_tests: bool) -> Reading:
    head, mark, last = stderr.rpartition("Traceback (most recent call last):\n")
    line = _python_last_line(last if mark else head + last)
    found = _PYTHON_LAST.match(line)
    if found is None or code < 0:
        return by_exit(stderr, code, has_tests)
    name = found[1].rpartition(".")[2]
    text = f"{name}: {found[2] or ''}"
    if not mark and _PYTHON.get(name) != "syntax" and "unittest" not in line:
        return by_exit(stderr, code, has_tests)
    word = first_word(_PYTHON_TEXT, text, _PYTHON.get(name, "runtime"))
    phase: Phase = "compile" if word == "syntax" and not mark else "run"
    return Reading(word, text if found[2] else name, phase)


def _python_last_line(text: str) -> str:
    """The `Class: message` line: the first one after the frames that is not indented."""
    lines = text.splitlines()
    after = [line for line in lines if line and not line[0].isspace()]
    return after[0] if after else ""


# -- JavaScript ---------------------------------------------------------------------------------------------------

_NODE_ERROR: Final = re.compile(r"^(?:Uncaught )?([A-Za-z_$][\w$]*)(?: \[(\w+)\])?(?::[ \t](.*))?$")
_NODE_COMPILING: Final = re.compile(
    r"at (?:wrapSafe|compileSourceTextModule|internalCompileFunction|ModuleLoader\.)"
)
_NODE: Final[Mapping[str, str]] = {
    "AssertionError": "logic",
    "TypeError": "type",
    "ReferenceError": "name",
}
_NODE_TEXT: Final[Rules] = (
    (r"Cannot find (?:module|package)|ERR_MODULE_NOT_FOUND", "import"),
    (r"does not provide an export named", "name"),
    (r"heap out of memory|Array buffer allocation failed", "memory"),
    *COMMON,
)


def node_run(stderr: str, code: int, has_tests: bool) -> Reading:
    if "heap out of memory" in stderr:
        return Reading("memory", "JavaScript heap out of memory")
    found = next(
        (match for line in stderr.splitlines() if (match := _NODE_ERROR.match(line)) and _is_error(match)), None
    )
    if found is None:
        return by_exit(stderr, code, has_tests)
    name, text = found[1], found[0]
    if name == "SyntaxError" and _NODE_COMPILING.search(stderr) and "does not provide" not in text:
        return Reading("syntax", text, "compile")
    default = "logic" if name == "Error" and has_tests else "runtime"
    return Reading(first_word(_NODE_TEXT, text, _NODE.get(name, default)), text)


def _is_error(found: re.Match[str]) -> bool:
    return found[1].endswith(("Error", "Exception")) or found[1] == "DOMException"


# -- C and C++ ----------------------------------------------------------------------------------------------------

_NATIVE: Final[Rules] = (
    (r"Assertion .* failed", "logic"),
    (r"std::bad_alloc|std::bad_array_new_length", "memory"),
    *COMMON,
)


def native_run(stderr: str, code: int, has_tests: bool) -> Reading:
    """C and C++: the only structure is the assertion's line, the uncaught exception's type, and the signal."""
    lines = [
        line for line in stderr.splitlines() if re.search(r"Assertion .* failed|^terminate called|what\(\):", line)
    ]
    if lines:
        return Reading(first_word(_NATIVE, " ".join(lines), "runtime"), " ".join(lines))
    return by_exit(stderr, code, has_tests)


# -- Java ---------------------------------------------------------------------------------------------------------

_JAVA_THROWN: Final = re.compile(
    r'^(?:Exception in thread "[^"]*" |Error: .*?\bCaused by: )?([\w.$]+(?:Error|Exception))(?:: (.*))?$', re.M
)
_JAVA: Final[Mapping[str, str]] = {
    "AssertionError": "logic",
    "ClassCastException": "type",
    "ArrayStoreException": "type",
    "OutOfMemoryError": "memory",
    "ClassNotFoundException": "import",
    "NoClassDefFoundError": "import",
}
_JAVA_PLAIN: Final = ("Error", "Exception", "RuntimeException")
_JAVA_TEXT: Final[Rules] = ((r"NoSuchElementException: No line found", "environment"), *COMMON)


def java_run(stderr: str, code: int, has_tests: bool) -> Reading:
    found = _JAVA_THROWN.search(stderr)
    if found is None:
        return by_exit(stderr, code, has_tests)
    name = found[1].rpartition(".")[2]
    text = f"{name}: {found[2]}" if found[2] else name
    default = "logic" if name in _JAVA_PLAIN and has_tests else "runtime"
    if name == "NoSuchElementException" and "java.util.Scanner" in stderr:
        return Reading("environment", text)
    return Reading(first_word(_JAVA_TEXT, text, _JAVA.get(name, default)), text)


# -- Go -----------------------------------------------------------------------------------------------------------

_GO_PANIC: Final = re.compile(r"^(?:panic|fatal error): (.*)$", re.MULTILINE)
_GO_TEXT: Final[Rules] = (
    (r"interface conversion", "type"),
    (r"out of memory|cannot allocate memory", "memory"),
    *COMMON,
)


def go_run(stderr: str, code: int, has_tests: bool) -> Reading:
    found = _GO_PANIC.search(stderr)
    if found is not None:
        return Reading(first_word(_GO_TEXT, found[0], "runtime"), found[0])
    return by_exit(stderr, code, has_tests)
