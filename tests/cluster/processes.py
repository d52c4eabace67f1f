"""Processes of a test cluster: started with a log and a pid file each, watched, and ended by number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The kernel kills the program when we end, and the program does not start when we ended before that was agreed.
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(done: Callable[[], bool], what: str, seconds: float, every: float = 0.05) -> None:
    """Returns when `done()` is true; names what it waited for when that takes too long."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


def started_at(pid: int) -> str | None:
    """When a process started, in clock ticks since boot, or None when it is gone (a zombie is gone)."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else rest[18]


@dataclass
class Processes:
    """The processes of one folder: `NAME.log` and `NAME.pid` (number and start time: numbers are used again).

    Unless `detached`, the kernel kills them when the thread that started them ends, however it ends; so start them
    from the main one.
    """

    folder: Path
    detached: bool = False
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    def start(self, name: str, argv: Iterable[str | Path], env: Mapping[str, str] | None = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        bound = [] if self.detached else [*_BOUND, str(os.getpid())]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*bound, *argv],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        self.children[name] = child
        (self.folder / f"{name}.pid").write_text(f"{child.pid} {started_at(child.pid)}\n")

    def pid(self, name: str) -> int | None:
        """The number of a process that is alive."""
        try:
            pid, since = (self.folder / f"{name}.pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if started_at(int(pid)) == since else None

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.pid"))

    def require(self, name: str) -> None:
        """Says with the end of its log that a process has ended."""
        if self.pid(name) is None:
            raise RuntimeError(f"{name} ended:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 20) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def stop(self, *names: str, sign: signal.Signals = signal.SIGKILL, grace: float = 5) -> None:
        """Signals all of them, then waits; what is left after the grace is killed."""
        for sending in (sign, signal.SIGKILL):
            pids = {name: pid for name in names if (pid := self.pid(name)) is not None}
            for pid in pids.values():
                os.kill(pid, sending)
            end = time.monotonic() + grace
            while any(self.pid(name) for name in pids) and time.monotonic() < end:
                time.sleep(0.02)
        for name in names:
            if child := self.children.pop(name, None):
                child.wait(grace)
            (self.folder / f"{name}.pid").unlink(missing_ok=True)
