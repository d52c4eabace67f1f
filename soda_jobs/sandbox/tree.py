"""What the processes under one process use now, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Positions in /proc/PID/stat, counted after the command's closing bracket.
_STATE, _PARENT, _UTIME, _STIME, _CUTIME, _CSTIME, _THREADS, _RSS = 0, 1, 11, 12, 13, 14, 17, 21


@dataclass(frozen=True, slots=True)
class Usage:
    """`busiest` and `cpu` are CPU seconds of one thread and of all; `is_idle` when no thread can run."""

    tasks: int
    resident: int
    busiest: float
    cpu: float
    is_idle: bool
    pids: tuple[int, ...]

    def proportional(self) -> int:
        """Resident bytes with shared pages counted once; reading them is slow."""
        return sum(_proportional(pid) for pid in self.pids)


def usage(root: int) -> Usage:
    """What the descendants of `root` use, without `root` itself."""
    pids = descendants(root)
    tasks = resident = 0
    reaped = _fields(f"/proc/{root}/stat")
    cpu = float(_sum(reaped, _CUTIME, _CSTIME)) if reaped else 0.0
    busiest, is_idle = 0, True
    for pid in pids:
        whole = _fields(f"/proc/{pid}/stat")
        if not whole:
            continue
        threads = int(whole[_THREADS])
        tasks += threads
        resident += int(whole[_RSS]) * _PAGE
        cpu += _sum(whole, _UTIME, _STIME, _CUTIME, _CSTIME)
        for thread in [whole] if threads == 1 else _thread_fields(pid):
            busiest = max(busiest, _sum(thread, _UTIME, _STIME))
            is_idle = is_idle and thread[_STATE] not in (b"R", b"D")
    return Usage(tasks, resident, busiest / _TICKS, cpu / _TICKS, is_idle, tuple(pids))


def descendants(root: int) -> list[int]:
    """Pids of all processes below `root`, parents before their children."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in _names(f"/proc/{pid}/task"):
        found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    if not found and not _KERNEL_LISTS_CHILDREN:
        return _children_by_search(pid)
    return found if len(found) < 2 else _without_threads(found)


def _without_threads(pids: list[int]) -> list[int]:
    """gVisor lists every thread of a child as one more child, after its first."""
    processes, threads = [], set[int]()
    for pid in sorted(pids):
        if pid not in threads:
            processes.append(pid)
            threads.update(int(name) for name in _names(f"/proc/{pid}/task"))
    return processes


def _children_by_search(pid: int) -> list[int]:
    wanted = str(pid).encode()
    pids = [int(name) for name in _names("/proc") if name.isdigit()]
    return [other for other in pids if (fields := _fields(f"/proc/{other}/stat")) and fields[_PARENT] == wanted]


def _thread_fields(pid: int) -> list[list[bytes]]:
    found = (_fields(f"/proc/{pid}/task/{thread}/stat") for thread in _names(f"/proc/{pid}/task"))
    return [fields for fields in found if fields]


def _proportional(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    fields = _fields(f"/proc/{pid}/stat")
    return int(fields[_RSS]) * _PAGE if fields else 0


def _fields(path: str) -> list[bytes]:
    return _read(path).rpartition(b")")[2].split()


def _sum(fields: list[bytes], *positions: int) -> int:
    return sum(int(fields[position]) for position in positions)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process ended meanwhile
        return b""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


_KERNEL_LISTS_CHILDREN: Final = Path(f"/proc/self/task/{os.getpid()}/children").exists()
