"""The workers behind a server: programs go to whichever is idle, and a doubtful timeout is run again alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from soda_jobs.log import event
from soda_jobs.parent import PARENT
from soda_jobs.sandbox.types import RETURNED_BYTES, Program, Verdict, to_dict, verdict_from_dict

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


class Gate:
    """Many at once, or one alone. Whoever wants to be alone goes before those who come later."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._is_alone = False

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_alone)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            async with self._changed:
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._inside == 0)
            yield
        finally:
            self._is_alone = False
            async with self._changed:
                self._changed.notify_all()


class Pool:
    """`size` workers. `run` may be called by any number of tasks; each waits for an idle worker."""

    def __init__(self, size: int) -> None:
        self._workers = [Worker(slot) for slot in range(size)]
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in reversed(self._workers):
            self._idle.put_nowait(worker)
        self._gate = Gate()
        self.walls: dict[str, Any] = {}
        self.versions: dict[str, str | None] = {}

    async def probe(self) -> None:
        """Ask one worker what this machine allows and which toolchains it has. Raises WorkerDied."""
        worker = await self._idle.get()
        try:
            self.versions = (await worker.ask({"probe": True}))["versions"]
            self.walls = worker.walls
        finally:
            self._idle.put_nowait(worker)

    async def run(self, program: Program) -> Verdict:
        async with self._gate.shared():
            verdict, is_final = await self._once(program)
        if is_final:
            return verdict
        async with self._gate.alone():
            again, _ = await self._once(program)
        event("ran_again_alone", id=program.id, first=verdict.verdict, second=again.verdict)
        return again

    async def close(self) -> None:
        for worker in self._workers:
            await worker.kill()

    async def _once(self, program: Program) -> tuple[Verdict, bool]:
        worker = await self._idle.get()
        try:
            reply = await worker.ask({"program": to_dict(program)})
        except WorkerDied as error:
            return Verdict(
                program.id, program.language, "sandbox_error", "run", f"the worker died: {error}", 0.0
            ), True
        finally:
            self._idle.put_nowait(worker)
        return verdict_from_dict(reply["verdict"]), reply["is_final"]
