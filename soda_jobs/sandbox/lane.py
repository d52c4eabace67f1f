"""Programs to the servers behind some URLs, and exactly one verdict back for each, whatever dies in between.

A verdict counts once the server has shown by its canaries that it still judges right; what a wrong canary made
void, and what a dead server had not yet proved, is run again. Programs that ran when a server died are run again
one at a time and alone: the one that ends its server twice is `memory`, the others are innocent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.log import event
from soda_jobs.sandbox import wire
from soda_jobs.sandbox.endpoint import FAULTS_IN_A_ROW, PAUSES, REST_SECONDS, Endpoint, Job, take, usable
from soda_jobs.sandbox.roster import Roster
from soda_jobs.sandbox.sharing import Sharing
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.verdict_cache import VerdictCache
from soda_jobs.sandbox.wire import FAILURES

FAULT_RETRIES: Final = 2
KILLS: Final = 2
CUTS: Final = 3  # deliveries cut off, after which a program is a suspect although nobody saw it start
PATIENCE_SECONDS: Final = 120.0
_TICK_SECONDS: Final = 0.1
_ROUNDS: Final = 64  # before others get a turn
_KILLED: Final = "it ended its sandbox twice when it ran alone"


@dataclass(slots=True)
class _Delivery:
    """One batch at one server: who speaks, what has no answer yet, and what was seen to start."""

    who: tuple[str, int]
    left: dict[str, Job]
    is_alone: bool = False
    is_accepted: bool = False
    began: set[str] = field(default_factory=set)


class Lane:
    """`run` may be called by any number of tasks; `close` ends everything."""

    def __init__(self, urls: Sequence[str], token: str, in_flight: int, cache: VerdictCache | None) -> None:
        self._token, self._in_flight, self._sharing = token, in_flight, Sharing(cache)
        self._queue: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._alone: Endpoint | None = None  # the server that is kept free for a suspect
        self._is_trying = False
        self._jobs: set[Job] = set()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._roster = Roster(urls, self._changed.set)
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._roster.keep())
        self._start(self._schedule())

    async def run(self, program: Program, *, may_share: bool = True) -> Verdict:
        """Raises Retry when no server was heard from for two minutes, InvalidInput when it refuses the program."""
        if self._error is not None:
            raise self._error
        if not self._jobs:
            self._roster.heard()
        job = Job(program, asyncio.get_running_loop().create_future(), may_share)
        self._jobs.add(job)
        self._queue.append(job)
        self._changed.set()
        try:
            return await job.done
        finally:
            self._jobs.discard(job)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._fail(list(self._jobs), error)

    # -- what goes where ------------------------------------------------------------------------------------------

    async def _schedule(self) -> None:
        while True:
            self._changed.clear()
            now = time.monotonic()
            if self._jobs and now - self._roster.heard_at > PATIENCE_SECONDS:
                where = " or ".join(self._roster.urls)
                error = Retry(f"the sandbox at {where} does not answer ({self._roster.why})")
                self._fail(list(self._jobs), error)
            servers = usable(self._roster.servers(), now)
            self._isolate(servers)
            self._assign([one for one in servers if one is not self._alone], now)
            self._prove(now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _TICK_SECONDS if self._jobs else None)

    def _isolate(self, servers: list[Endpoint]) -> None:
        """Keep one server free of other programs while there are suspects, and send it one at a time."""
        if self._is_trying:
            return
        if not self._suspects or not servers:
            self._alone = None
            return
        if self._alone not in servers:
            self._alone = servers[0]
        assert self._alone is not None
        if not (self._alone.in_flight or self._alone.unproven or self._alone.is_checking):
            self._is_trying = True
            self._send_soon(self._alone, [self._suspects.popleft()], is_alone=True)

    def _assign(self, servers: list[Endpoint], now: float) -> None:
        for _ in range(_ROUNDS):
            gave = 0
            for one in servers:
                room = one.window(self._in_flight) - one.in_flight
                batch = take(self._queue, one, servers, room, now)
                gave += len(batch)
                fresh = [job for job in batch if not self._is_known(job, one)]
                if fresh:
                    self._send_soon(one, fresh)
            if not gave:
                return
        self._changed.set()

    def _is_known(self, job: Job, one: Endpoint) -> bool:
        answer = self._sharing.ask(job, one)
        if isinstance(answer, Verdict):
            self._settle(job, answer)
        return answer is not None

    def _prove(self, now: float) -> None:
        for one in self._roster.servers():
            if one.must_prove(now, is_last=not self._queue or one is self._alone):
                one.is_checking = True
                self._start(self._check(one))

    def _send_soon(self, one: Endpoint, batch: list[Job], *, is_alone: bool = False) -> None:
        one.in_flight += len(batch)
        delivery = _Delivery(one.who, {job.program.id: job for job in batch}, is_alone)
        self._start(self._send(one, delivery))

    # -- one batch ------------------------------------------------------------------------------------------------

    async def _send(self, one: Endpoint, delivery: _Delivery) -> None:
        count = len(delivery.left)
        programs = [job.program for job in delivery.left.values()]
        try:
            async with contextlib.aclosing(
                wire.run(one.address, self._token, programs, self._roster.heard)
            ) as rows:
                async for row in rows:
                    self._read(one, row, delivery)
                    if not delivery.left:
                        break
            if delivery.left:
                raise EOFError("it ended the reply before every verdict")
            one.failures = 0
        except InvalidInput as error:
            self._fail(delivery.left.values(), error)
        except FAILURES as error:
            self._roster.blame(one, error)
            await self._cut_off(one, delivery)
        finally:
            one.in_flight -= count
            self._is_trying = self._is_trying and not delivery.is_alone
            self._changed.set()

    def _read(self, one: Endpoint, row: dict[str, Any], delivery: _Delivery) -> None:
        delivery.is_accepted = True
        if "started" in row:
            delivery.began.add(str(row["started"]))
        elif "void" in row:
            self._void(one, str(row["void"]))
            raise EOFError("a canary was wrong")
        elif "server" in row:
            delivery.who = self._recognise(one, row)
        elif delivery.who != one.who:
            raise EOFError("what it still says is void")
        else:
            verdict = wire.verdict_of(row)
            job = delivery.left.pop(verdict.id, None)
            if job is not None:  # else it was answered already
                self._take(one, job, verdict)

    def _recognise(self, one: Endpoint, row: dict[str, Any]) -> tuple[str, int]:
        """What another server at this address, or this one before a wrong canary, has said is worth nothing."""
        server, epoch = who = wire.epoch_of(row)
        is_late = server == one.who[0] and epoch < one.who[1]  # another connection was faster
        if one.health is not None and who != one.who and not is_late:
            self._void(one, "it is not the server that it was")
            one.health = replace(one.health, server=server, epoch=epoch)
        return who

    def _take(self, one: Endpoint, job: Job, verdict: Verdict) -> None:
        now = time.monotonic()
        if verdict.verdict != "sandbox_error":
            one.faults = 0
            one.since = one.since if one.unproven else now
            one.unproven.append((job, verdict))
            return
        one.faults += 1
        if one.faults >= FAULTS_IN_A_ROW:
            one.shun_until = now + REST_SECONDS
        if job.faults >= FAULT_RETRIES:
            self._settle(job, verdict)
            return
        job.faults += 1
        job.avoid.add(one.address)
        job.not_before = now + PAUSES[job.faults]
        event("sandbox_fault", id=job.program.id, attempt=job.faults, reason=verdict.detail)
        self._again(job)

    async def _cut_off(self, one: Endpoint, delivery: _Delivery) -> None:
        is_dead = await self._is_dead(one, delivery.who[0])
        one.rest(time.monotonic())
        if one.who[0] == delivery.who[0]:
            if is_dead:
                self._void(one, "it ended")
            one.health = None  # and it is asked who it is before it gets more
        self._roster.look()
        for name, job in reversed(delivery.left.items()):
            job.cuts += delivery.is_accepted
            job.kills += is_dead and delivery.is_alone and delivery.is_accepted
            if job.kills >= KILLS:
                self._settle(job, Verdict(name, job.program.language, "memory", "run", _KILLED, 0.0))
            else:
                self._again(job, is_suspect=is_dead and (name in delivery.began or job.cuts >= CUTS))

    async def _is_dead(self, one: Endpoint, server: str) -> bool:
        try:
            return (await wire.health(one.address)).server != server
        except FAILURES:
            return True

    # -- whether it counts ----------------------------------------------------------------------------------------

    async def _check(self, one: Endpoint) -> None:
        claimed, count, who = one.unproven, len(one.unproven), one.who
        try:
            row = await wire.check(one.address, self._token, self._roster.heard)
            if self._recognise(one, row) != who or row["wrong"]:
                self._void(one, str(row["wrong"]))
            if one.unproven is claimed:  # and not void meanwhile
                one.unproven, one.since = claimed[count:], time.monotonic()
                for job, verdict in claimed[:count]:
                    self._settle(job, verdict)
        except FAILURES as error:
            self._roster.blame(one, error)
            await self._cut_off(one, _Delivery(who, {}))
        finally:
            one.is_checking = False
            self._changed.set()

    def _void(self, one: Endpoint, reason: str) -> None:
        unproven, one.unproven = one.unproven, []
        if unproven:
            event("verdicts_void", sandbox=str(one.address), count=len(unproven), reason=reason)
        for job, _ in reversed(unproven):
            self._again(job)

    def _again(self, job: Job, *, is_suspect: bool = False) -> None:
        self._queue.extendleft(self._sharing.part(job))
        if is_suspect:
            self._suspects.append(job)
        else:
            self._queue.appendleft(job)

    def _settle(self, job: Job, verdict: Verdict) -> None:
        for twin, shared in self._sharing.settle(job, verdict):
            if shared is None:
                self._queue.appendleft(twin)
            else:
                self._settle(twin, shared)
        if not job.done.done():
            job.done.set_result(verdict)

    def _fail(self, jobs: Iterable[Job], error: BaseException) -> None:
        for job in list(jobs):
            self._fail(self._sharing.part(job), error)
            if not job.done.done():
                job.done.set_exception(error)
