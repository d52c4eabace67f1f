"""A worker process as the server sees it: one request at a time, started when asked and again after it died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any, Final

from soda_jobs.parent import PARENT
from soda_jobs.sandbox.types import RETURNED_BYTES

TOKEN: Final = "SODA_SANDBOX_TOKEN"
_REPLY_BYTES: Final = 2 * RETURNED_BYTES


class WorkerDied(Exception):
    """The worker ended before it answered."""


class Worker:
    """One worker process, started when first asked and again after it died."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._process: asyncio.subprocess.Process | None = None
        self.walls: dict[str, Any] = {}
        self.slowdown, self.measured_at = 1.0, float("-inf")

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one reply. Raises WorkerDied; when cancelled, the worker and its program are killed."""
        try:
            if self._process is None:
                self._process = await self._start()
            return await self._exchange(self._process, request)
        except WorkerDied:
            await self.kill()
            raise
        except asyncio.CancelledError:
            await self.kill()
            raise

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        env = {key: value for key, value in os.environ.items() if key != TOKEN}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "soda_jobs.sandbox.worker"),
            env={**env, PARENT: str(os.getpid())},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_REPLY_BYTES,
        )
        self.walls = (await self._exchange(process, {"slot": self._slot}))["walls"]
        return process

    async def _exchange(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (ConnectionError, ValueError) as error:
            raise WorkerDied(str(error)) from error
        if not line.endswith(b"\n"):
            raise WorkerDied("it ended before it answered")
        reply: dict[str, Any] = json.loads(line)
        return reply
