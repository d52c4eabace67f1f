"""TypeScript: checked by its compiler's library, then run by Node."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from soda_jobs.sandbox.diagnostics import Reading, Rules, first_word
from soda_jobs.sandbox.service import text_of
from soda_jobs.sandbox.source import Source, join_javascript
from soda_jobs.sandbox.tools import path_of

_CHECK: Final = ".check.cjs"
_OLD_SPACE_MIB: Final = 640
_CALLED: Final = {"main.js": "main.ts", "main.mjs": "main.mts"}


def join(code: str, tests: str) -> Source:
    """As JavaScript is joined; a file with `import` or `export` is a module, and one with `require` is not."""
    joined = join_javascript(code, tests)
    files = {_CALLED.get(name, name): text for name, text in joined.files.items()}
    return Source(files, _CALLED[joined.main], has_proof=joined.has_proof)


def scripts() -> dict[str, str]:
    return {_CHECK: text_of("check.cjs")}


def serve() -> tuple[str, ...]:
    return (path_of("node"), f"--max-old-space-size={_OLD_SPACE_MIB}", f"./{_CHECK}", path_of("tsc"))


def compile_(joined: Source) -> tuple[tuple[str, ...], ...]:
    return ((*serve(), joined.main),)


_CODES: Final[Rules] = (
    (r"^(?:2307|2792|2306|2688|7016)$", "import"),
    (r"^(?:2589|2590|2321|2799|2800|1160)$", "compile_limit"),  # types that do not end
    (r"^1\d{3}$|^17\d{3}$", "syntax"),
    (
        r"^(?:2304|2552|2318|2503|2305|2459|2460|2614|2724|2339|2551|2353|2300|2451|2393|2448|2454|2580|2581|2582"
        r"|2583|2584|2591|2592|2593|2663|2694|18004)$",
        "name",
    ),
)


def read_compile(text: str) -> Reading:
    """The first line of our script; what else may stand there is Node's own end."""
    for line in text.splitlines():
        error = _item(line)
        if {"file", "line", "code", "message"} <= set(error):
            place = f"{error['file']}:{error['line']}: " if error["file"] else ""
            word = first_word(_CODES, str(error["code"]), "type")
            return Reading(word, f"{place}TS{error['code']}: {error['message']}")
    is_limit = re.search(r"heap out of memory|Maximum call stack size exceeded", text)
    first = (text.strip().splitlines() or ["the compiler gave no reason"])[0]
    return Reading("compile_limit" if is_limit else "syntax", first)


def _item(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
