"""The watch over one job: output that is always drained, and at each tick whether it has had its share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from soda_jobs.sandbox import tree
from soda_jobs.sandbox.types import RETURNED_BYTES, Returns
from soda_jobs.sandbox.walls import SCRATCH_BYTES, TASKS

OUTPUT_BYTES: Final = RETURNED_BYTES
KEPT_BYTES: Final = 1 << 16
TICK_SECONDS: Final = 0.025
BUSY_FACTOR: Final = 10.0  # wall time over own time at which we stop waiting for a CPU
_SIZE_TICKS: Final = 20
_IDLE_SHARE: Final = 0.9

Limit = Literal["time", "memory", "processes", "output", "disk"]


@dataclass(frozen=True, slots=True)
class Job:
    """`seconds` is own time (see types.Program); `address_bytes` limits one process's address space, if given."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    seconds: float
    memory_bytes: int
    address_bytes: int | None = None
    stdin: bytes = b""
    returns: Returns = ""


@dataclass
class Output:
    """A pipe that is always drained; only its first and last bytes are kept, or all of it when `is_whole`."""

    is_whole: bool = False
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.is_whole:
            self.head += data[: max(0, OUTPUT_BYTES - len(self.head))]
            return
        room = KEPT_BYTES - len(self.head)
        self.head += data[:room]
        self.tail += data[room:] if room > 0 else data
        del self.tail[:-KEPT_BYTES]

    def clear(self) -> None:
        self.head, self.tail, self.size = bytearray(), bytearray(), 0

    def text(self) -> str:
        return (self.head + self.tail).decode("utf-8", errors="replace")


class Watch:
    """Decides at each tick whether a job has had its share, or its share of one request when `is_continued`.

    `init` says what process 1 of its jail is. Nothing is read about a job that ends before the first tick.
    """

    def __init__(
        self,
        init: Callable[[], int],
        job: Job,
        outputs: list[Output],
        folder: str | None,
        *,
        is_continued: bool = False,
    ) -> None:
        self._init, self._job, self._outputs, self._folder = init, job, outputs, folder
        self._before = tree.usage(init()).cpu if is_continued else 0.0
        self._started = self._last = time.monotonic()
        self._idle, self._ticks = 0.0, 0
        self.limit: Limit | None = None
        self.is_certain = self.is_idle = False

    def is_over(self) -> bool:
        if sum(output.size for output in self._outputs) > OUTPUT_BYTES:
            self.limit = "output"
            return True
        now = time.monotonic()
        if now - self._last < TICK_SECONDS:
            return False
        used = tree.usage(self._init())
        self._idle += now - self._last if used.is_idle else 0.0
        self._last = now
        self._ticks += 1
        self.limit = self._memory_or_tasks(used) or self._disk() or self._time(used, now)
        return self.limit is not None

    def _memory_or_tasks(self, used: tree.Usage) -> Limit | None:
        if used.tasks >= TASKS - 2:
            return "processes"
        limit = self._job.memory_bytes
        return "memory" if used.resident > limit and used.proportional() > limit else None

    def _time(self, used: tree.Usage, now: float) -> Limit | None:
        cpu = used.cpu - self._before
        own = min(used.busiest, cpu) + self._idle
        # Two CPUs of its own, which is what programs are told that there are, would have taken it as long.
        self.is_certain = own >= self._job.seconds or cpu + self._idle >= 2 * self._job.seconds
        self.is_idle = self._idle >= _IDLE_SHARE * self._job.seconds
        is_over = self.is_certain or now - self._started >= BUSY_FACTOR * self._job.seconds
        return "time" if is_over else None

    def _disk(self) -> Limit | None:
        """Without namespaces there is no tmpfs with a size, so the folder is measured now and then."""
        if self._folder is None or self._ticks % _SIZE_TICKS:
            return None
        return "disk" if _folder_bytes(self._folder) > SCRATCH_BYTES else None


def _folder_bytes(folder: str) -> int:
    total, waiting = 0, [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_size
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return total
