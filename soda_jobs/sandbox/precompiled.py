"""C++'s standard headers, compiled once and kept: parsing them is most of what a small program costs.

A program's leading includes of standard headers, which may stand in any order, are its set; nothing else is ever
compiled beforehand, so that a header that is not included stays unknown. A set that is asked for often is
compiled, outside any jail and from its names alone, into a cache of our own whose key is the compiler and its
flags. Where there is none, or it does not fit, the compiler reads the headers themselves, slower.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from soda_jobs.log import event
from soda_jobs.sandbox.tools import cache_folder, path_of

ALL: Final = "bits/stdc++.h"
_OFTEN: Final = 8  # programs of one worker, from which on a set is worth its compilation; for all headers, 2
_MAX_SETS: Final = 12  # 20 to 100 MB each
_SECONDS: Final = 300
_SETS: Final = ((ALL,), ("iostream",), ("iostream", "vector"), ("algorithm", "iostream", "string", "vector"))
_NAMES: Final = """
algorithm any array assert.h atomic bitset cassert cctype cfloat chrono climits cmath complex
condition_variable cstddef cstdint cstdio cstdlib cstring ctime ctype.h deque exception fstream functional
future initializer_list iomanip ios iosfwd iostream istream iterator limits limits.h list locale map math.h
memory mutex new numeric optional ostream queue random ratio regex set sstream stack stdexcept stdint.h
stdio.h stdlib.h streambuf string string.h string_view thread time.h tuple type_traits typeindex typeinfo
unordered_map unordered_set utility variant vector
"""
_HEADERS: Final = frozenset(_NAMES.split())
_LINE: Final = re.compile(r"[ \t]*(?:#[ \t]*include[ \t]*<([\w./+]+)>)?[ \t]*(?://[^\n\\]*)?(?:\n|\Z)")


def headers_of(code: str) -> tuple[str, ...]:
    """The standard headers that a program includes before it says anything else, sorted. Pure."""
    found: set[str] = set()
    at = 0
    while at < len(code) and (line := _LINE.match(code, at)) is not None:
        if line[1] is not None and line[1] != ALL and line[1] not in _HEADERS:
            break
        found.update([line[1]] if line[1] else [])
        at = line.end()
    return (ALL,) if ALL in found else tuple(sorted(found))


_asked: Final[Counter[tuple[str, ...]]] = Counter()


def header_for(headers: tuple[str, ...], flags: tuple[str, ...]) -> Path | None:
    """The file to include first; None while there is none, which may be forever."""
    if not headers:
        return None
    path = _path(headers, flags)
    if _is_there(path):
        return path
    _asked[headers] += 1
    if _asked[headers] != (2 if headers == (ALL,) else _OFTEN):
        return None
    try:
        return _compile_once(headers, flags, path)
    except (OSError, subprocess.SubprocessError) as error:
        event("headers_not_precompiled", headers=" ".join(headers), reason=str(error))
        return None


def warm(flags: tuple[str, ...]) -> None:
    """The sets that most programs have, for an image."""
    for headers in _SETS:
        _compile_once(headers, flags, _path(headers, flags))


def folder() -> Path:
    found = cache_folder() / "cpp"
    with contextlib.suppress(OSError):  # a read-only image: what is there is there
        found.mkdir(parents=True, exist_ok=True)
    return found


def _path(headers: Iterable[str], flags: tuple[str, ...]) -> Path:
    what = repr((_compiler(), flags, tuple(headers)))
    return folder() / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.h"


def _is_there(path: Path) -> bool:
    return Path(f"{path}.gch").exists()


@cache
def _compiler() -> str:
    return subprocess.run(
        [path_of("g++"), "-v"], capture_output=True, text=True, timeout=_SECONDS, check=False
    ).stderr


def _compile_once(headers: tuple[str, ...], flags: tuple[str, ...], path: Path) -> Path:
    """Whoever is first compiles; the others wait, and find it. Raises OSError and SubprocessError."""
    with path.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_there(path):
            return path
        made = sorted(path.parent.glob("*.gch"), key=lambda kept: kept.stat().st_mtime)
        for old in made[: len(made) - _MAX_SETS + 1]:  # whoever reads it now has it open, or reads the headers
            old.unlink()
        path.write_text("".join(f"#include <{name}>\n" for name in headers))
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            fresh = Path(temporary, "header.gch")
            argv = [path_of("g++"), *flags, "-x", "c++-header", str(path), "-o", str(fresh)]
            env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
            subprocess.run(argv, env=env, capture_output=True, timeout=_SECONDS, check=True)
            fresh.chmod(0o644)
            fresh.rename(f"{path}.gch")
        path.chmod(0o644)
    return path
