"""The walls around a program: what this machine allows, their sizes, and what goes into a jail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

BOX: Final = "/box"
INNER_ID: Final = 1000
SCRATCH_BYTES: Final = 256 << 20
SCRATCH_FILES: Final = 8192
FILE_BYTES: Final = 64 << 20
OPEN_FILES: Final = 512
STACK_BYTES: Final = 8 << 20
TASKS: Final = 256
PROOF: Final = 3  # the descriptor on which tests say that they reached their end


class JailFault(Exception):
    """The jail itself failed; the program is not to blame."""


class JailEnded(JailFault):
    """Process 1 of the jail died during a job: the machine ran out of memory, or the program reached it."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What this machine allows. `namespaces` is all of user, pid, mount, network, ipc and uts. `program_id` is the
    uid and gid of programs, unique to a worker, when we may choose it; None: they run under ours. `launcher` is
    the program that builds the walls, with a system-call filter; "": this module does, without one."""

    namespaces: bool
    program_id: int | None
    missing: str = ""
    launcher: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What process 1 of a jail says when a job has ended: its wait status, and CPU seconds of all that it was."""

    status: int
    disk_is_full: bool
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Setup:
    """`box` is the program's folder as it sees it; `files` and `links` are written there; `shown` are read-only
    for it."""

    walls: Walls
    box: str
    files: Mapping[str, bytes]
    links: Mapping[str, str]
    shown: tuple[str, ...]


def write_maps(pid: int, walls: Walls) -> None:
    """From outside: inner root is us and inner 1000 the programs' id; without that right, inner 1000 is us."""
    if walls.program_id is not None:
        users = groups = f"0 0 1\n{INNER_ID} {walls.program_id} 1\n"
    else:
        users, groups = f"{INNER_ID} {os.geteuid()} 1\n", f"{INNER_ID} {os.getegid()} 1\n"
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(users)
    Path(f"/proc/{pid}/gid_map").write_text(groups)


@cache
def task_limit() -> int:
    """RLIMIT_NPROC for a program. Linux counts the tasks of each user namespace; gVisor counts all of a user's, so
    that there one program's tasks would use up its neighbours' limit, and the watch alone keeps them apart."""
    has_own_count = Path("/proc/sys/user/max_user_namespaces").exists()
    return TASKS if has_own_count else 16 * TASKS
