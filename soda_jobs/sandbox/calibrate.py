"""How slow a slot is now: a fixed piece of work, timed every few seconds and compared with the best time seen.

On Linux a program's own time is what the kernel charged it, and noise only makes each second of it do less: the
same work then takes more CPU time. Inside gVisor the charged time is not the time that was had (its kernel cannot
know), so there the clock on the wall is the only one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path
from typing import Final

from soda_jobs.sandbox.types import Program

EVERY_SECONDS: Final = 5.0
QUIET: Final = 1.3  # slower than its best by less than this, a slot is believed when time runs out
MOST: Final = 4.0  # slower than this a slot is not worth waiting for
MARGIN: Final = 1.3  # of the limit, where noise makes charged seconds dearer
_ROUNDS, _CALLS, _PAGES = 60_000, 1_000, 200
_PASSES: Final = 3
_TIMES_REFERENCE: Final = 10.0
_FLOORS: Final = {"java": 6.0, "javascript": 3.0, "typescript": 4.0, "go": 3.0, "csharp": 6.0}
_FLOOR: Final = 2.0
_LOG_SIZE: Final = 1 << 16
_READ_ALL: Final = 3


def measure() -> dict[str, float]:
    """Wall and CPU seconds of the fixed work: arithmetic, system calls, page faults. It is the mean of a few
    passes, because the best of them would hide what is to be measured."""
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(_PASSES):
        total = 0
        for number in range(_ROUNDS):
            total += number ^ (total & 255)
        for _ in range(_CALLS):
            os.getppid()
        with mmap.mmap(-1, _PAGES * mmap.PAGESIZE) as memory:
            for page in range(_PAGES):
                memory[page * mmap.PAGESIZE] = 1
    return {"wall": (time.perf_counter() - wall) / _PASSES, "cpu": (time.thread_time() - cpu) / _PASSES}


class Slowness:
    """Compares each measurement with the best of this server."""

    def __init__(self, is_gvisor: bool) -> None:
        self._clock = "wall" if is_gvisor else "cpu"
        self._best = float("inf")

    def of(self, measured: dict[str, float]) -> float:
        seconds = max(measured[self._clock], 1e-9)
        self._best = min(self._best, seconds)
        return seconds / self._best


def limit_seconds(program: Program) -> float:
    """The program's limit on a quiet machine."""
    if not program.reference_seconds:
        return program.timeout_seconds
    floor = _FLOORS.get(program.language, _FLOOR)
    return min(max(_TIMES_REFERENCE * program.reference_seconds, floor), program.timeout_seconds)


def scaled(seconds: float, slowdown: float, is_gvisor: bool) -> float:
    """The limit to set where a slot is this much slower than at its best."""
    return seconds * min(max(slowdown, 1.0), MOST) * (1.0 if is_gvisor else MARGIN)


def is_gvisor() -> bool:
    """Whether the kernel under us is gVisor's: it says so in its version or in its log."""
    try:
        if "gvisor" in Path("/proc/version").read_text().lower():
            return True
    except OSError:
        pass
    log = ctypes.create_string_buffer(_LOG_SIZE)
    size = ctypes.CDLL(None, use_errno=True).klogctl(_READ_ALL, log, _LOG_SIZE)
    return size > 0 and b"gVisor" in log.raw[:size]
