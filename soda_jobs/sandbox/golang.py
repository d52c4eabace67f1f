"""Go's standard library, compiled once and kept: `go build` costs a second for each program, this a third of it.

Compiler and linker are called directly with an import configuration that names the compiled packages. They are
made on demand by `go list -export`, outside any jail and from the standard library alone, in a cache of our own.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from soda_jobs.sandbox import tools
from soda_jobs.sandbox.tools import path_of

_PACKAGE: Final = re.compile(r"[a-z0-9]+(?:/[a-z0-9]+)*")
_WARM: Final = ("testing", "syscall", "fmt")  # what nearly every program needs, listed together
_SECONDS: Final = 600


def cache_folder() -> Path:
    return tools.cache_folder() / "go"


@cache
def tool(name: str) -> str:
    """`compile` or `link` of the toolchain."""
    return str(Path(_go("env", "GOTOOLDIR").strip(), name))


@cache
def standard_packages() -> frozenset[str]:
    return frozenset(name for name in _go("list", "std").split() if _PACKAGE.fullmatch(name))


def import_config(imports: Iterable[str]) -> str:
    """The configuration for these imports and all that they import; what is not standard is left out."""
    wanted = sorted({*imports, "runtime"} & standard_packages())  # the linker wants it of every program
    missing = tuple(name for name in wanted if name not in _known)
    if missing:
        _compile(missing if _known else tuple(sorted({*missing, *_WARM})))
    return "".join(f"packagefile {name}={path}\n" for name, path in sorted(_known.items()))


def warm() -> None:
    """Compile the whole standard library, for an image."""
    _compile(tuple(sorted(standard_packages())))


_known: Final[dict[str, str]] = {}


def _compile(packages: tuple[str, ...]) -> None:
    """One process at a time builds; the others then find everything in the cache."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            listed = _list(packages)
    except OSError:  # a read-only image: everything is there already
        listed = _list(packages)
    for line in listed.splitlines():
        name, _, path = line.partition("=")
        if path:
            _known[name] = path


def _list(packages: tuple[str, ...]) -> str:
    return _go("list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", *packages)


def _go(*words: str) -> str:
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(cache_folder()),
        "GOCACHE": str(cache_folder()),
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        [path_of("go"), *words], env=env, cwd="/", capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        raise OSError(f"go {words[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout
