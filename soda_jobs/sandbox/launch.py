"""The launcher, a small C program that builds jails: found, or compiled once into the user's cache.

`python -m soda_jobs.sandbox.launch FOLDER` compiles it for an image, which names it in SODA_LAUNCHER.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

NAMED: Final = "SODA_LAUNCHER"
LAUNCHER: Final = "launcher"
LIBRARY: Final = "forkserver.so"

_SOURCES: Final = Path(__file__).with_name("launcher")
_COMPILERS: Final = ("cc", "gcc", "clang")
_SECONDS: Final = 120.0
_FLAGS: Final = ("-std=c11", "-O2", "-U_FORTIFY_SOURCE")  # it would take a jump to another stack for an attack
_SHARED: Final = ("wire.c", "files.c", "filter.c", "jail.c", "serve.c")


class NoLauncher(Exception):
    """One sentence: why there is none here."""


@cache
def find() -> Path:
    """The launcher's path; its library lies beside it. Raises NoLauncher."""
    if not sys.platform.startswith("linux"):
        raise NoLauncher("the launcher needs Linux")
    named = os.environ.get(NAMED)
    if named is not None:
        if not os.access(named, os.X_OK):
            raise NoLauncher(f"{NAMED} is {named!r}, which is not a program; leave it unset to compile one")
        return Path(named)
    folder = _cache_folder() / f"launcher-{_digest()}"
    if not (folder / LAUNCHER).exists():
        _compile_once(folder)
    return folder / LAUNCHER


def compile_to(folder: Path) -> None:
    """Compile the launcher and its library into `folder`. Raises NoLauncher."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise NoLauncher(f"the launcher is not compiled, and none of {', '.join(_COMPILERS)} is installed")
    launcher = (*_paths("launcher.c", "root.c", *_SHARED), "-o", str(folder / LAUNCHER))
    try:
        _run(compiler, *_FLAGS, "-static", *launcher)  # a small process is cheap to copy
    except NoLauncher:
        _run(compiler, *_FLAGS, *launcher)
    library = (*_paths("forkserver.c", *_SHARED), "-o", str(folder / LIBRARY))
    _run(compiler, *_FLAGS, "-shared", "-fPIC", "-fvisibility=hidden", *library, "-ldl")


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLauncher(f"the launcher cannot be compiled: {error}") from error
    if done.returncode != 0:
        first = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise NoLauncher(f"the launcher cannot be compiled: {first}")


def _compile_once(folder: Path) -> None:
    """Whoever is first compiles; the others wait, and find it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock")):
            if (folder / LAUNCHER).exists():
                return
            made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".launcher-"))
            try:
                compile_to(made)
                made.chmod(0o755)
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise NoLauncher(f"the launcher cannot be kept in {folder.parent}: {error.strerror or error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cache_folder() -> Path:
    named = os.environ.get("SODA_SANDBOX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "soda" / "sandbox"


def _digest() -> str:
    """Of all that decides what comes out: sources, flags and machine."""
    digest = hashlib.sha256(repr((_FLAGS, platform.machine(), platform.libc_ver())).encode())
    for path in sorted(_SOURCES.iterdir()):
        if path.suffix in (".c", ".h"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _paths(*names: str) -> tuple[str, ...]:
    return tuple(str(_SOURCES / name) for name in names)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    compile_to(Path(sys.argv[1]))
