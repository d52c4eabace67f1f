"""Where the toolchains are on this machine, and which folders a jail must show for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

PATH: Final = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"
CPUS: Final = 2  # what every runtime believes the machine has, so that programs do the same on all machines
_ALWAYS_SHOWN: Final = ("/usr/", "/bin/", "/sbin/", "/lib")


def cache_folder() -> Path:
    """Of what is compiled once on a machine: `SODA_SANDBOX_CACHE`, else below the user's cache folder."""
    named = os.environ.get("SODA_SANDBOX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "soda" / "sandbox"


@cache
def find(tool: str) -> str | None:
    """The program's path; "python" is the interpreter below the environment that runs the sandbox, and "tsc" the
    library that its compiler is.

    Links outside /usr are followed, because a jail shows the folder they lead to and not where they lie.
    """
    if tool == "python":
        return os.path.realpath(str(getattr(sys, "_base_executable", sys.executable)))
    found = shutil.which(tool) or shutil.which(tool, path=PATH)
    if found is not None and tool in _BEHIND:
        return _BEHIND[tool](found)
    if found is None or f"{found}/".startswith(_ALWAYS_SHOWN):
        return found
    return os.path.realpath(found)


def _toolchain_of_rustup(rustc: str) -> str | None:
    """The compiler itself: what rustup puts on the path chooses one by what a home folder says."""
    argv = [rustc, "--print", "sysroot"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    found = os.path.join(done.stdout.strip(), "bin", "rustc")
    return found if done.returncode == 0 and os.path.exists(found) else None


def _library_of_typescript(tsc: str) -> str | None:
    """Its library, when the types of Node are installed beside it; the native compiler has no such library."""
    package = Path(os.path.realpath(tsc)).parent.parent
    library = package / "lib" / "typescript.js"
    return str(library) if library.exists() and (package.parent / "@types" / "node").exists() else None


_BEHIND: Final[Mapping[str, Callable[[str], str | None]]] = {
    "rustc": _toolchain_of_rustup,
    "tsc": _library_of_typescript,
}


def path_of(tool: str) -> str:
    found = find(tool)
    if found is None:
        raise OSError(f"{tool} is not installed")
    return found


@cache
def folders(tool: str) -> tuple[str, ...]:
    """The folders outside /usr that the tool needs: its installation. Python's has no environment of ours."""
    home = Path(path_of(tool)).parent
    if tool == "python":
        homes = [sys.base_prefix, str(home.parent)]
        wanted = [path for home in homes for path in (home, os.path.realpath(home))]  # a link and where it leads
    elif tool == "tsc":
        modules = home.parent.parent
        wanted = [str(modules / name) for name in ("typescript", "@types/node", "undici-types")]
    else:
        wanted = [str(home.parent if home.name == "bin" else home)]
    return tuple(dict.fromkeys(folder for folder in wanted if not f"{folder}/".startswith(_ALWAYS_SHOWN)))
