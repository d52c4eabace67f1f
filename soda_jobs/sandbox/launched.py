"""Jails that the launcher builds: one launcher for each toolchain, kept as long as this process lives.

A warm interpreter is a launcher too: it builds the same walls, and its programs are copies of itself.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import resource
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from soda_jobs.log import event
from soda_jobs.sandbox import launch, messages
from soda_jobs.sandbox.messages import MAX_MESSAGE, ForkServer
from soda_jobs.sandbox.walls import (
    BOX,
    FILE_BYTES,
    OPEN_FILES,
    SCRATCH_BYTES,
    SCRATCH_FILES,
    STACK_BYTES,
    JailEnded,
    JailFault,
    Reply,
    Setup,
    Walls,
    task_limit,
    write_maps,
)
from soda_jobs.sandbox.watch import Job

CONTROL: Final = 3
_ANSWER_SECONDS: Final = 30.0
_START_SECONDS: Final = 60.0
_LIBRARY: Final = "/proc/self/fd/4"
_INLINE_BYTES: Final = 32 << 10
_SCRATCH: Final = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=755"
_COVERED: Final = ("/tmp/", "/var/tmp/", "/dev/shm/", f"{BOX}/")
_LIMITS: Final = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: FILE_BYTES,
    resource.RLIMIT_NOFILE: OPEN_FILES,
    resource.RLIMIT_STACK: STACK_BYTES,
}


@dataclass
class Launched:
    """One jail of a launcher. `control` speaks to its process 1."""

    launcher: Launcher
    token: int
    control: socket.socket
    pid: int = 0
    is_open: bool = True

    @property
    def init(self) -> int:
        while not self.pid:
            self.launcher.hear()
        return self.pid

    def start(self, job: Job, cpu_seconds: int, handles: list[int]) -> None:
        limits = {resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_NPROC: task_limit()}
        if job.address_bytes is not None:
            limits[resource.RLIMIT_AS] = job.address_bytes
        with contextlib.suppress(OSError):  # then it is gone, and its last words are still to be read
            socket.send_fds(self.control, [messages.job(limits, job.argv, job.env)], handles)

    def reply(self) -> Reply:
        """How the job ended. Raises JailFault."""
        message = _receive(self.control)
        if message[:1] == b"F":
            raise JailFault(message[1:].decode(errors="replace"))
        if message[:1] != b"E":
            _ = self.init  # raises where there never was one
            raise JailEnded("the jail ended by itself")
        status, is_full, microseconds = messages.numbers(message)
        return Reply(status, bool(is_full), microseconds / 1e6)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.control.close()
            self.launcher.close(self.token)


class Launcher:
    """A running launcher for one set of walls and one toolchain. Raises JailFault when it does not start."""

    def __init__(self, walls: Walls, shown: tuple[str, ...], server: ForkServer | None) -> None:
        self._shown = tuple(path for path in shown if f"{path}/".startswith(_COVERED))
        self._opened: deque[Launched] = deque()
        self._tokens = itertools.count(1)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_START_SECONDS)
        self._said, said = os.pipe()
        self.pid = _spawn(walls.launcher, theirs, said)
        theirs.close()
        os.close(said)
        try:
            self._expect(b"U")
            write_maps(self.pid, walls)
            start = messages.start(_LIMITS, shown, server, BOX, _LIBRARY)
            with contextlib.ExitStack() as stack:
                handles = []
                if server is not None:
                    handles.append(
                        os.open(os.path.join(os.path.dirname(walls.launcher), launch.LIBRARY), os.O_RDONLY)
                    )
                    stack.callback(os.close, handles[0])
                socket.send_fds(self._control, [start], handles)
            self._expect(b"R")
        except (OSError, JailFault) as error:
            self.end()
            raise JailFault(f"the launcher did not start: {error}") from error
        self._control.settimeout(_ANSWER_SECONDS)

    def open(self, files: Mapping[str, bytes], links: Mapping[str, str]) -> Launched:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_SECONDS)
        jail = Launched(self, next(self._tokens), ours)
        head, contents = messages.open_jail(jail.token, _SCRATCH, self._shown, files, links)
        handles = [theirs.fileno()]
        try:
            if len(head) + len(contents) > _INLINE_BYTES:
                handles.append(in_memory(contents))
                contents = b""
            socket.send_fds(self._control, [head + contents], handles)
        except OSError as error:
            ours.close()
            raise JailFault(f"the launcher does not listen: {error}") from error
        finally:
            theirs.close()
            for handle in handles[1:]:
                os.close(handle)
        self._opened.append(jail)
        return jail

    def hear(self) -> None:
        """One answer: to the oldest jail's opening, or to a closing. Raises JailFault.

        A launcher that gives none is ended, and its jails with it: later answers would be taken for others.
        """
        try:
            message = _receive(self._control)
            if not message:
                raise JailFault(f"the launcher ended: {self._last_words()}")
        except JailFault:
            self.end()
            raise
        if message[:1] == b"F":
            raise JailFault(message[1:].decode(errors="replace"))
        if message[:1] == b"P":
            self._opened.popleft().pid = messages.numbers(message)[0]
        elif message[:1] == b"N":
            self._opened.popleft().pid = -1
            raise JailFault(f"no jail can be made: {os.strerror(messages.numbers(message)[0])}")
        self._is_closed = message[:1] == b"C"

    def close(self, token: int) -> None:
        """When this returns nothing of the jail is left."""
        self._is_closed = False
        with contextlib.suppress(OSError):
            self._control.send(messages.close_jail(token))
        while self.pid and not self._is_closed:  # a launcher that is gone took all that it started along
            with contextlib.suppress(JailFault):
                self.hear()

    def end(self) -> None:
        if self.pid:
            self._control.close()
            os.close(self._said)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 9)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0

    def _expect(self, letter: bytes) -> None:
        message = _receive(self._control)
        if message != letter:
            raise JailFault(message[1:].decode(errors="replace") or self._last_words())

    def _last_words(self) -> str:
        os.set_blocking(self._said, False)
        try:
            words = os.read(self._said, MAX_MESSAGE).decode(errors="replace").strip()
        except OSError:
            words = ""
        return words.splitlines()[-1] if words else "it gave no reason"


@dataclass
class _Kept:
    """The launchers of this process. `failed` are fork servers that do not start: their programs are executed."""

    running: dict[tuple[Walls, tuple[str, ...], ForkServer | None], Launcher] = field(default_factory=dict)
    failed: set[ForkServer | None] = field(default_factory=set)
    owner: int = 0


_kept: Final = _Kept()


def open_launched(setup: Setup, server: ForkServer | None) -> tuple[Launched, ForkServer | None]:
    """A jail, and the fork server if it is one's. Raises JailFault."""
    shown = tuple(path for path in setup.shown if os.path.lexists(path))
    if server in _kept.failed:
        server = None
    try:
        launcher = _launcher(setup.walls, shown, server)
    except JailFault as fault:
        if server is None:
            raise
        _kept.failed.add(server)
        event("fork_server_failed", program=server.argv[0], reason=str(fault))
        server = None
        launcher = _launcher(setup.walls, shown, None)
    return launcher.open(setup.files, setup.links), server


def _launcher(walls: Walls, shown: tuple[str, ...], server: ForkServer | None) -> Launcher:
    if _kept.owner != os.getpid():  # we were forked: they are our parent's
        _kept.running.clear()
        _kept.owner = os.getpid()
        atexit.register(end_launchers)
    key = (walls, shown, server)
    launcher = _kept.running.get(key)
    if launcher is not None and not _is_alive(launcher):
        launcher.end()
        launcher = None
    if launcher is None:
        launcher = _kept.running[key] = Launcher(walls, shown, server)
    return launcher


def end_launchers() -> None:
    """End the launchers that this process started, and with them their jails."""
    if _kept.owner == os.getpid():
        for launcher in _kept.running.values():
            launcher.end()
        _kept.running.clear()


def in_memory(data: bytes) -> int:
    """A descriptor that gives `data` and then end of file."""
    handle = os.memfd_create("data")
    with open(handle, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _is_alive(launcher: Launcher) -> bool:
    try:
        return launcher.pid != 0 and os.waitpid(launcher.pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _spawn(path: str, control: socket.socket, said: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, said, 1),
        (os.POSIX_SPAWN_DUP2, said, 2),
        (os.POSIX_SPAWN_DUP2, control.fileno(), CONTROL),
    ]
    return os.posix_spawn(path, [launch.LAUNCHER], {}, file_actions=actions)


def _receive(control: socket.socket) -> bytes:
    """The next message; empty at the end. Raises JailFault when none comes."""
    try:
        return control.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return b""
    except OSError as error:
        raise JailFault(f"no answer: {error}") from error
