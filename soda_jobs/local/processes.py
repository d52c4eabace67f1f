"""Subprocesses that cannot outlive us, whose events we read line by line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from soda_jobs.parent import PARENT

STOP_SECONDS: Final = 10.0
_LINE_LIMIT: Final = 1 << 20

OnEvent = Callable[[dict[str, Any]], None]


class Process:
    """A child in its own session: a Ctrl-C in the terminal reaches us alone, and we stop it in our own time."""

    def __init__(self, child: asyncio.subprocess.Process, log: Path, on_event: OnEvent) -> None:
        self._child = child
        self._reader = asyncio.create_task(_follow(child, log, on_event))

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], *, log: Path, on_event: OnEvent) -> Process:
        """Start `argv`; "python" means this interpreter. Events go to `on_event`, every line to `log`."""
        program = [sys.executable, *argv[1:]] if argv[0] == "python" else list(argv)
        log.parent.mkdir(parents=True, exist_ok=True)
        child = await asyncio.create_subprocess_exec(
            *program,
            env={**os.environ, "SODA_LOG": "json", PARENT: str(os.getpid()), **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        return cls(child, log, on_event)

    @property
    def exited(self) -> bool:
        return self._child.returncode is not None

    async def wait(self) -> int:
        """The exit code; minus the signal's number when a signal ended it."""
        code = await self._child.wait()
        await self._reader
        return code

    async def stop(self) -> None:
        """SIGTERM to its session, SIGKILL after ten seconds; returns when it is gone."""
        if not self.exited:
            _signal(self._child.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._child.wait(), STOP_SECONDS)
        except TimeoutError:
            _signal(self._child.pid, signal.SIGKILL)
        await self._child.wait()
        _signal(self._child.pid, signal.SIGKILL)  # whatever it left behind in its session
        await self._reader


def _signal(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


async def _follow(child: asyncio.subprocess.Process, log: Path, on_event: OnEvent) -> None:
    assert child.stdout is not None
    with log.open("ab", buffering=0) as file:
        while True:
            try:
                line = await child.stdout.readline()
            except ValueError:  # a line longer than the limit: not one of our events
                continue
            if not line:
                return
            with suppress(OSError):  # a full disk: whoever reads no more would block the child in its next line
                file.write(line)
            found = _event(line)
            if found is not None:
                on_event(found)


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None
