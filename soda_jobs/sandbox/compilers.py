"""What a compiler said, read: GCC's JSON, javac's diagnostic codes, Go's fixed phrases. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from soda_jobs.sandbox.diagnostics import Reading, Rules, first_word

# -- C and C++ ----------------------------------------------------------------------------------------------------

_GCC: Final[Rules] = (
    (r"^fatal error: .*No such file or directory", "import"),
    (
        r"out of memory|memory exhausted|Cannot allocate memory|template instantiation depth"
        r"|internal compiler error|signal terminated program|constexpr.*(?:limit|depth|count)"
        r"|#include nested depth|is too large|File too large",
        "compile_limit",
    ),
    (
        r"undeclared|not declared|does not name a type|unknown type name|has not been declared|no member named"
        r"|is not a member of|undefined reference|multiple definition|redefinition of|has incomplete type"
        r"|used but never defined|defined but not used|implicit declaration",
        "name",
    ),
    (
        r"expected .* (?:before|at end|after)|^error: expected|stray|unterminated|missing terminating"
        r"|expected declaration|does not end|unbalanced|invalid suffix|empty character",
        "syntax",
    ),
    (
        r"conver|invalid operands|incompatible|no match|no matching|too (?:few|many) arguments|invalid use"
        r"|invalid type|cannot bind|type|lvalue|not a function|const|argument|subscripted|private"
        r"|protected|ambiguous|operand",
        "type",
    ),
)
_GCC_LINE: Final = re.compile(r"^(?:[\w./-]+:)?(?:(\d+):\d+: )?(?:\S+: )?((?:fatal )?error: .*)$", re.MULTILINE)
_GCC_NESTED: Final = "#include nested depth"
_LINK_LINE: Final = re.compile(r"(?:undefined reference to|multiple definition of) .*")


def gcc_compile(stderr: str) -> Reading:
    for line in stderr.splitlines():
        for item in _gcc_items(line):
            if item.get("kind") in ("error", "fatal error"):
                message = f"{item['kind']}: {item.get('message', '')}"
                return Reading(first_word(_GCC, message, "syntax"), f"{_gcc_place(item)}{message}")
    found = _LINK_LINE.search(stderr)
    if found:
        return Reading("name", found[0])
    if _GCC_NESTED in stderr:  # one error, longer than what is kept of it: it shows every file on the way
        return Reading("compile_limit", _GCC_NESTED)
    plain = _GCC_LINE.search(stderr)
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("[")]
    message = plain[2] if plain else (lines or ["the compiler gave no reason"])[0]
    return Reading(first_word(_GCC, message, "syntax"), message)


def _gcc_items(line: str) -> list[dict[str, Any]]:
    """The items of a list in JSON that may be cut short: those that are whole."""
    found: list[dict[str, Any]] = []
    decoder, at = json.JSONDecoder(), 1
    while line.startswith("[") and line.startswith("{", at):
        try:
            item, at = decoder.raw_decode(line, at)
        except (ValueError, RecursionError):
            break
        found.append(item)
        at += len(", ")
    return found


def _gcc_place(item: Mapping[str, Any]) -> str:
    try:
        caret = item["locations"][0]["caret"]
        return f"{caret['file'].rpartition('/')[2]}:{caret['line']}: "
    except (KeyError, IndexError, TypeError):
        return ""


# -- Java ---------------------------------------------------------------------------------------------------------

_JAVAC_LINE: Final = re.compile(
    r"^(?:\S*?([\w$]+\.java):(\d+):\d+|-): (compiler\.(?:err|misc)[\w.]+)(?:: (.*))?$", re.M
)
_JAVAC: Final[Rules] = (
    (r"^(?:illegal|expected|premature|not\.stmt|unclosed|else\.without|catch\.without|orphaned)", "syntax"),
    (r"class\.public\.should\.be\.in\.file", "environment"),
    (r"doesnt\.exist|package\.not\.visible|cant\.resolve\.location\.args.*package", "import"),
    (r"cant\.resolve|already\.defined|not\.def\.public|does\.not\.override|not\.def\.access", "name"),
    (
        r"prob\.found\.req|incompatible|cant\.apply|operator\.cant|incomparable|cant\.deref|array\.req|unexpected\.type"
        r"|not\.within\.bounds|ref\.ambiguous|cant\.ref\.non|not\.encl|report\.access|var\.might|unreported"
        r"|missing\.ret\.stmt|abstract\.cant|cant\.assign|void|non-static|improperly|foreach|type",
        "type",
    ),
    (r"too\.large|limit\.|stack\.overflow|out of memory", "compile_limit"),
)


def javac_compile(stderr: str) -> Reading:
    found = next((match for match in _JAVAC_LINE.finditer(stderr) if match[3].startswith("compiler.err")), None)
    if found is None:
        first = (stderr.strip().splitlines() or ["the compiler gave no reason"])[0]
        is_limit = re.search(r"OutOfMemoryError|StackOverflowError|system is out of resources", stderr)
        return Reading("compile_limit" if is_limit else "syntax", first)
    place = f"{found[1]}:{found[2]}: " if found[1] else ""
    code = found[3].removeprefix("compiler.err.")
    return Reading(
        first_word(_JAVAC, code, "syntax"), f"{place}{code}: {found[4]}" if found[4] else f"{place}{code}"
    )


# -- Go -----------------------------------------------------------------------------------------------------------

_GO_LINE: Final = re.compile(r"^(?:\S*?(main\.go:\d+)(?::\d+)?: )(.*)$", re.MULTILINE)
_GO: Final[Rules] = (
    (
        r"^syntax error|invalid character|not terminated|non-declaration statement|missing return"
        r"|expected ",
        "syntax",
    ),
    (r"^could not import", "import"),
    (
        r"^undefined:|undefined \(|has no field or method|not exported|redeclared|imported and not used"
        r"|declared and not|label .* (?:not )?defined|unknown field",
        "name",
    ),
    (r"too large|stack frame|overflows? ", "compile_limit"),
)


def go_compile(stderr: str) -> Reading:
    found = _GO_LINE.search(stderr)
    if found is None:
        message = (stderr.strip().splitlines() or ["the compiler gave no reason"])[0]
        return Reading(("name" if "undefined" in message or "undeclared" in message else "syntax"), message)
    return Reading(first_word(_GO, found[2], "type"), f"{found[1]}: {found[2]}")
