"""Where the toolchains are on this machine, and which folders a jail must show for them."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Final

PATH: Final = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"
_ALWAYS_SHOWN: Final = ("/usr/", "/bin/", "/sbin/", "/lib")


@cache
def find(tool: str) -> str | None:
    """The program's path; "python" is the interpreter below the environment that runs the sandbox.

    Links outside /usr are followed, because a jail shows the folder they lead to and not where they lie.
    """
    if tool == "python":
        return os.path.realpath(str(getattr(sys, "_base_executable", sys.executable)))
    found = shutil.which(tool) or shutil.which(tool, path=PATH)
    if found is None or f"{found}/".startswith(_ALWAYS_SHOWN):
        return found
    return os.path.realpath(found)


def path_of(tool: str) -> str:
    found = find(tool)
    if found is None:
        raise OSError(f"{tool} is not installed")
    return found


@cache
def folders(tool: str) -> tuple[str, ...]:
    """The folders outside /usr that the tool needs: its installation. Python's has no environment of ours."""
    if tool == "python":
        homes = [sys.base_prefix, str(Path(path_of(tool)).parent.parent)]
        wanted = [path for home in homes for path in (home, os.path.realpath(home))]  # a link and where it leads
    else:
        home = Path(path_of(tool)).parent
        wanted = [str(home.parent if home.name == "bin" else home)]
    return tuple(dict.fromkeys(folder for folder in wanted if not f"{folder}/".startswith(_ALWAYS_SHOWN)))
