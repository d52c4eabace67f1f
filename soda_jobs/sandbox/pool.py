"""The workers behind a server: programs go to whichever is idle, and an expiry counts where noise is no cause.

Where it may be the cause, the program is run again alone, with twice the limit. If time runs out there too while
the machine stays as it was, it is a timeout; if it grew busier nobody knows, and it is no fault of the program's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from soda_jobs.log import event
from soda_jobs.sandbox.calibrate import (
    EVERY_SECONDS,
    MOST,
    QUIET,
    Slowness,
    is_gvisor,
    limit_seconds,
    scaled,
)
from soda_jobs.sandbox.gate import Gate
from soda_jobs.sandbox.types import Program, Verdict, to_dict, verdict_from_dict
from soda_jobs.sandbox.workers import TOKEN, Worker, WorkerDied

__all__ = ["TOKEN", "OnStart", "Pool", "WorkerDied"]

OnStart = Callable[[], None]

CONFIRMATIONS: Final = 2  # of equal programs; the next are believed at once
_REMEMBERED: Final = 4096
_ALONE_FACTOR: Final = 2.0
_PAUSE_SECONDS: Final = 1.0
_PAUSES: Final = 60
_GREW_BUSY: Final = "the machine became {:.1f} times slower while it was timed"
_SAMPLES: Final = 20  # of the slowdown before a run whose expiry may be final: a busy machine lets short work pass
_BEAT_SECONDS: Final = 0.02
_TOO_BUSY: Final = "the machine was too busy to time it: {:.1f} times slower than at its best"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run. `slowed`: how much slower the slot was after it than its limit allowed for; `has_expired` when its
    time ran out."""

    verdict: Verdict
    is_final: bool = True
    is_idle: bool = False
    slowed: float = 1.0

    @property
    def has_expired(self) -> bool:
        return self.verdict.verdict == "timeout" or not self.is_final


class Pool:
    """`size` workers. `run` may be called by any number of tasks; each waits for an idle worker."""

    def __init__(self, size: int, make: Callable[[int], Worker] = Worker, *, gvisor: bool | None = None) -> None:
        self.size = size
        self._workers = [make(slot) for slot in range(size)]
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in reversed(self._workers):
            self._idle.put_nowait(worker)
        self._gate = Gate()
        self._confirmed: OrderedDict[bytes, int] = OrderedDict()
        self.is_gvisor = is_gvisor() if gvisor is None else gvisor
        self._slowness = Slowness(self.is_gvisor)
        self.trouble = ""
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

    async def run(self, program: Program, on_start: OnStart = lambda: None) -> Verdict:
        """`on_start` is called when a worker takes the program, each time."""
        async with self._gate.shared():
            first = await self._once(program, 1.0, on_start)
        if not first.has_expired or self._is_believed(first):
            return first.verdict
        name = _name(program)
        if self._confirmed.get(name, 0) >= CONFIRMATIONS:
            return first.verdict
        async with self._gate.alone():
            again = await self._once(program, _ALONE_FACTOR, on_start)
        event("ran_again_alone", id=program.id, first=first.verdict.verdict, second=again.verdict.verdict)
        if again.has_expired and again.verdict.verdict in ("timeout", "compile_limit"):
            if not (again.is_idle or self._is_quiet(again)):
                return _fault(program, _GREW_BUSY.format(again.slowed))
            self._remember(name)
        return again.verdict

    async def restart(self) -> None:
        """End every worker; each starts again when it is next asked."""
        for worker in self._workers:
            await worker.kill()

    close = restart

    def _is_believed(self, ran: Ran) -> bool:
        """Without another run: it waited rather than worked, or a kernel that can tell charged it its time."""
        if ran.is_idle:
            return ran.is_final
        return not self.is_gvisor and self._is_quiet(ran)

    def _is_quiet(self, ran: Ran) -> bool:
        """Whether the slot was no slower than the limit allowed for, and where charged seconds are true, whether
        the program was charged its own."""
        return (self.is_gvisor or ran.is_final) and ran.slowed < QUIET

    def _remember(self, name: bytes) -> None:
        self._confirmed[name] = self._confirmed.get(name, 0) + 1
        self._confirmed.move_to_end(name)
        if len(self._confirmed) > _REMEMBERED:
            self._confirmed.popitem(last=False)

    async def _once(self, program: Program, factor: float, on_start: OnStart) -> Ran:
        worker = await self._idle.get()
        try:
            samples = 1 if factor == 1.0 else _SAMPLES
            before = await self._calm(worker, samples)
            if before > MOST:
                return Ran(_fault(program, _TOO_BUSY.format(before)))
            seconds = scaled(factor * limit_seconds(program), before, self.is_gvisor)
            on_start()
            stop, meanwhile = asyncio.Event(), list[float]()
            listening = asyncio.create_task(self._listen(meanwhile, stop)) if samples > 1 else None
            try:
                reply = await worker.ask({"program": {**to_dict(program), "timeout_seconds": seconds}})
            finally:
                stop.set()
                if listening is not None:
                    await listening
            ran = Ran(verdict_from_dict(reply["verdict"]), reply["is_final"], reply["is_idle"])
            if ran.has_expired:
                after = fmean(meanwhile) if meanwhile else await self._measure(worker, samples)
                ran = replace(ran, slowed=after / max(before, 1.0))
            return ran
        except WorkerDied as error:
            return Ran(_fault(program, f"the worker died: {error}"))
        finally:
            self._idle.put_nowait(worker)

    async def _calm(self, worker: Worker, samples: int) -> float:
        """The slot's slowdown, one sample of which holds for a few seconds; while it is too slow we wait, for a
        minute."""
        for _ in range(_PAUSES):
            if samples > 1 or time.monotonic() - worker.measured_at >= EVERY_SECONDS:
                await self._measure(worker, samples)
            self.trouble = "" if worker.slowdown <= MOST else _TOO_BUSY.format(worker.slowdown)
            if not self.trouble:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            worker.measured_at = float("-inf")
        return worker.slowdown

    async def _listen(self, found: list[float], stop: asyncio.Event) -> None:
        """Measure on another worker, if there is one, for as long as a program runs alone: what happens between
        its beginning and its end is not seen at either."""
        with contextlib.suppress(asyncio.QueueEmpty, WorkerDied):
            other = self._idle.get_nowait()
            try:
                while not stop.is_set():
                    found.append(await self._measure(other))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _BEAT_SECONDS)
            finally:
                self._idle.put_nowait(other)

    async def _measure(self, worker: Worker, samples: int = 1) -> float:
        found = [self._slowness.of(await worker.ask({"calibrate": True})) for _ in range(samples)]
        worker.slowdown = fmean(found)
        worker.measured_at = time.monotonic()
        return worker.slowdown


def _fault(program: Program, detail: str) -> Verdict:
    return Verdict(program.id, program.language, "sandbox_error", "run", detail, 0.0)


def _name(program: Program) -> bytes:
    parts = [program.language, program.code, program.tests, program.stdin, limit_seconds(program)]
    return hashlib.sha256(json.dumps(parts).encode()).digest()
