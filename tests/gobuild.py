"""Programs that tests need, built once by Go from a committed go.mod and go.sum into a cache outside the checkout.

The cache is `$SODA_CACHE` or `~/.cache/soda`. A cold build takes minutes of CPU time; afterwards none is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


def cache_folder() -> Path:
    folder = Path(os.environ.get("SODA_CACHE") or Path.home() / ".cache" / "soda")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time builds a thing; the others wait and find it built."""
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(
    module: Path,
    package: str,
    name: str,
    *,
    ldflags: str = "",
    tags: str = "",
    cgo: bool = False,
    work: Path | None = None,
    options: Sequence[str] = (),
) -> Path:
    """The program of one Go package, built now if it is not in the cache.

    `module` is the folder with go.mod and go.sum, whose bytes and these options name the cached file; `work` is a
    folder to build in that is not the module itself (a patched vendor tree, say).
    """
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"Go is not installed, so {name} cannot be built (https://go.dev/dl)")
    digest = hashlib.sha256((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes())
    digest.update(repr((package, ldflags, tags, cgo, tuple(options))).encode())
    program = cache_folder() / "bin" / f"{name}-{digest.hexdigest()[:12]}"
    if program.exists():
        return program
    program.parent.mkdir(exist_ok=True)
    with locked(program.name):
        if not program.exists():
            fresh = program.with_suffix(".new")
            flags = [
                "-trimpath",
                "-ldflags",
                f"-s -w {ldflags}".strip(),
                *(["-tags", tags] if tags else []),
                *options,
            ]
            subprocess.run(
                ["nice", "-n", "10", go, "build", *flags, "-o", fresh, package],
                cwd=work or module,
                env={**os.environ, "CGO_ENABLED": "1" if cgo else "0"},
                check=True,
            )
            fresh.rename(program)
    return program
