"""One jail from the outside: open it, run programs in it one after the other, close it and nothing is left.

Limits are watched from here, outside every namespace of the jail: memory, processes, output and time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.sandbox import tree
from soda_jobs.sandbox.inside import BOX, INNER_ID, MAX_MESSAGE, Setup, Walls, enter
from soda_jobs.sandbox.watch import KEPT_BYTES, OUTPUT_BYTES, TICK_SECONDS, Job, Limit, Output, Watch

ENDING_SECONDS: Final = 10.0


class JailFault(Exception):
    """The jail itself failed; the program is not to blame."""


class JailEnded(JailFault):
    """Process 1 of the jail died during a job: the machine ran out of memory, or the program reached it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended. `limit`: what we stopped it for; `is_certain`: an idle machine would not have helped;
    `is_idle`: it slept or waited for most of its time.

    `code` is the exit code, or minus the signal's number; `stdout` and `stderr` keep the first and last 64 KiB.
    `returned` is all that the job asked for.
    """

    code: int
    limit: Limit | None
    is_certain: bool
    disk_is_full: bool
    is_proved: bool
    stdout: str
    stderr: str
    seconds: float
    returned: bytes = b""
    is_idle: bool = False


class Jail:
    """Use as a context manager. `run` may be called several times; the files stay between the calls."""

    def __init__(
        self,
        walls: Walls,
        files: Mapping[str, bytes],
        links: Mapping[str, str],
        *,
        shown: tuple[str, ...] = (),
    ) -> None:
        self._walls = walls
        self._folder = None if walls.namespaces else tempfile.mkdtemp(prefix="soda-box-")
        self.box = self._folder or BOX
        self._setup = Setup(walls, self.box, files, links, shown)
        self._child = self._init = 0

    def __enter__(self) -> Jail:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            self._control.close()
            enter(self._setup, theirs)
        theirs.close()
        self._control.settimeout(ENDING_SECONDS)
        try:
            if self._walls.namespaces:
                self._expect(b"unshared")
                _write_maps(self._child, self._walls)
                self._control.send(b"mapped")
            self._init = int(self._reply()["pid"])
            self._expect(b"ready")
        except (OSError, JailFault):
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        if self._folder is not None:  # rm, because folders may nest deeper than Python's stack
            subprocess.run([shutil.which("rm") or "/bin/rm", "-rf", self._folder], check=False)

    def run(self, job: Job) -> Ended:
        """Start the job and watch it to its end. Raises JailFault when the jail broke."""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            outputs = [Output(job.returns == "stdout"), Output(), Output(job.returns == "observations")]
            writers = []
            for output in outputs:
                reader, writer = os.pipe()
                os.set_blocking(reader, False)
                if self._walls.program_id is not None:  # so that a program may open /dev/stdout
                    os.fchown(writer, self._walls.program_id, self._walls.program_id)
                stack.callback(os.close, reader)
                writers.append(writer)
                selector.register(reader, selectors.EVENT_READ, output)
            selector.register(self._control, selectors.EVENT_READ)
            started = time.monotonic()
            self._send(job, [_given(job.stdin), *writers])
            watch = Watch(self._init, job, outputs, self._folder)
            reply = self._watch(selector, watch)
            seconds = time.monotonic() - started
            _drain(selector, ENDING_SECONDS)
        stdout, stderr, proof = outputs
        return Ended(
            code=os.waitstatus_to_exitcode(reply["status"]),
            limit=watch.limit or ("output" if sum(output.size for output in outputs) > OUTPUT_BYTES else None),
            is_certain=watch.is_certain,
            disk_is_full=reply["disk_is_full"],
            is_proved=proof.size > 0,
            stdout=stdout.text(),
            stderr=stderr.text(),
            seconds=seconds,
            returned=bytes({"": b"", "stdout": stdout.head, "observations": proof.head}[job.returns]),
            is_idle=watch.is_idle,
        )

    def start(self, job: Job, stdin: int, stdout: int) -> None:
        """Start a job that stays, such as a warm compiler, on these pipes of the caller's, which are closed here.

        Nothing watches it but its resource limits; it ends with the jail.
        """
        silent = [os.open("/dev/null", os.O_WRONLY) for _ in range(2)]
        self._send(job, [stdin, stdout, *silent])

    def _send(self, job: Job, handles: list[int]) -> None:
        message = {
            "argv": job.argv,
            "env": dict(job.env),
            "cpu_seconds": int(job.seconds * 4) + 10,  # a net below the watch
            "address_bytes": job.address_bytes,
        }
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], handles)
        finally:
            for handle in handles:
                os.close(handle)

    def _watch(self, selector: selectors.BaseSelector, watch: Watch) -> dict[str, Any]:
        while True:
            for key, _ in selector.select(TICK_SECONDS):
                if key.fileobj is self._control:
                    return self._reply()
                _read(selector, key)
            if watch.is_over():
                self._kill()
                return {"status": signal.SIGKILL, "disk_is_full": watch.limit == "disk"}

    def _reply(self) -> dict[str, Any]:
        message = self._receive()
        if not message:
            raise JailEnded("the jail ended by itself")
        try:
            reply: dict[str, Any] = json.loads(message)
        except ValueError as error:
            raise JailFault(f"the jail said {message[:40]!r}") from error
        if "fault" in reply:
            raise JailFault(reply["fault"])
        return reply

    def _kill(self) -> None:
        """Kill process 1 of the jail, and with it the jail; without namespaces, everything below it first."""
        if not self._init:
            return
        if not self._walls.namespaces:
            deadline = time.monotonic() + ENDING_SECONDS
            while (pids := tree.descendants(self._init)) and time.monotonic() < deadline:
                for pid in pids:
                    _kill(pid)
                time.sleep(0.001)
        _kill(self._init)
        self._init = 0

    def _receive(self) -> bytes:
        try:
            return self._control.recv(MAX_MESSAGE)
        except OSError as error:
            raise JailFault(f"the jail did not answer: {error}") from error

    def _expect(self, word: bytes) -> None:
        message = self._receive()
        if message != word:
            fault = json.loads(message).get("fault", "") if message.startswith(b"{") else "it ended"
            raise JailFault(f"the jail did not open: {fault}")


def _write_maps(pid: int, walls: Walls) -> None:
    """Inner root is us and inner 1000 the programs' id; without the right to choose, inner 1000 is us."""
    if walls.program_id is not None:
        users = groups = f"0 0 1\n{INNER_ID} {walls.program_id} 1\n"
    else:
        users, groups = f"{INNER_ID} {os.geteuid()} 1\n", f"{INNER_ID} {os.getegid()} 1\n"
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", users)
    _write(f"/proc/{pid}/gid_map", groups)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _given(stdin: bytes) -> int:
    """A descriptor that gives `stdin` and then end of file."""
    if not stdin:
        return os.open("/dev/null", os.O_RDONLY)
    handle = os.memfd_create("stdin")
    with open(handle, "wb", closefd=False) as file:
        file.write(stdin)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    try:
        data = os.read(key.fd, KEPT_BYTES)
    except BlockingIOError:
        return
    if data:
        key.data.add(data)
    else:
        selector.unregister(key.fileobj)


def _drain(selector: selectors.BaseSelector, seconds: float) -> None:
    """Read what is left. All writers are dead, so this ends; the deadline is for what a kernel may do."""
    deadline = time.monotonic() + seconds
    pipes = [key for key in selector.get_map().values() if key.data is not None]
    while pipes and time.monotonic() < deadline:
        for key, _ in selector.select(TICK_SECONDS):
            if key.data is not None:
                _read(selector, key)
        pipes = [key for key in selector.get_map().values() if key.data is not None]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
