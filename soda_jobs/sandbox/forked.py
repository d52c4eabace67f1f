"""Jails that Python builds in a process forked from this one, where there is no launcher. See inside.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import Any, Final

from soda_jobs.sandbox import tree
from soda_jobs.sandbox.inside import MAX_MESSAGE, enter
from soda_jobs.sandbox.walls import JailEnded, JailFault, Reply, Setup, write_maps
from soda_jobs.sandbox.watch import Job

_SECONDS: Final = 10.0


class Forked:
    """One jail. `control` speaks to its process 1. Raises JailFault when it cannot be built."""

    def __init__(self, setup: Setup) -> None:
        self._walls = setup.walls
        self.init = 0
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            self.control.close()
            enter(setup, theirs)
        theirs.close()
        self.control.settimeout(_SECONDS)
        try:
            if self._walls.namespaces:
                self._expect(b"unshared")
                write_maps(self._child, self._walls)
                self.control.send(b"mapped")
            self.init = int(self._message()["pid"])
            self._expect(b"ready")
        except (OSError, JailFault):
            self.close()
            raise

    def start(self, job: Job, cpu_seconds: int, handles: list[int]) -> None:
        message = {
            "argv": job.argv,
            "env": dict(job.env),
            "cpu_seconds": cpu_seconds,
            "address_bytes": job.address_bytes,
        }
        socket.send_fds(self.control, [json.dumps(message).encode()], handles)

    def reply(self) -> Reply:
        """How the job ended. Raises JailFault."""
        message = self._message()
        return Reply(message["status"], message["disk_is_full"], message["cpu_seconds"])

    def close(self) -> None:
        """Kill process 1 of the jail, and with it the jail; without namespaces, everything below it first."""
        if not self._child:
            return
        if self.init and not self._walls.namespaces:
            deadline = time.monotonic() + _SECONDS
            while (pids := tree.descendants(self.init)) and time.monotonic() < deadline:
                for pid in pids:
                    _kill(pid)
                time.sleep(0.001)
        if self.init:
            _kill(self.init)
        self.control.close()
        _kill(self._child)
        os.waitpid(self._child, 0)
        self._child = 0

    def _message(self) -> dict[str, Any]:
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

    def _receive(self) -> bytes:
        try:
            return self.control.recv(MAX_MESSAGE)
        except OSError as error:
            raise JailFault(f"the jail did not answer: {error}") from error

    def _expect(self, word: bytes) -> None:
        message = self._receive()
        if message != word:
            fault = json.loads(message).get("fault", "") if message.startswith(b"{") else "it ended"
            raise JailFault(f"the jail did not open: {fault}")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
