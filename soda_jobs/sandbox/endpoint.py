"""What the dispatcher knows of one program and of one server, and which server gets which programs next. Pure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.wire import Address, Health

BATCH: Final = 8
BATCH_BYTES: Final = 16 << 20
PROVEN_EVERY: Final = 256  # verdicts of a server between two proofs that it is right
PROVEN_SECONDS: Final = 5.0
REST_SECONDS: Final = 30.0
FAULTS_IN_A_ROW: Final = 3
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(eq=False, slots=True)
class Job:
    """A program on its way. `cuts`: deliveries without an answer; `kills`: servers that died with it alone."""

    program: Program
    done: asyncio.Future[Verdict]
    may_share: bool = True  # its verdict may be that of an equal program
    key: bytes | None = None  # in the cache, when it speaks for equal programs
    faults: int = 0
    cuts: int = 0
    kills: int = 0
    not_before: float = 0.0
    avoid: set[Address] = field(default_factory=set)

    def size(self) -> int:
        return len(self.program.code) + len(self.program.tests) + len(self.program.stdin)


@dataclass(eq=False, slots=True)
class Endpoint:
    """One server. `unproven` are verdicts that wait for its next good canary; `since` is when the first came."""

    address: Address
    health: Health | None = None
    is_listed: bool = True
    is_checking: bool = False
    in_flight: int = 0
    failures: int = 0
    faults: int = 0  # one after the other
    rest_until: float = 0.0  # not used before
    shun_until: float = 0.0  # used before only while there is no other
    unproven: list[tuple[Job, Verdict]] = field(default_factory=list)
    since: float = 0.0

    @property
    def who(self) -> tuple[str, int]:
        """Which server it is, and since which wrong canary."""
        return (self.health.server, self.health.epoch) if self.health is not None else ("", 0)

    def window(self, most: int) -> int:
        """Programs to have there at once: enough that no worker waits for the next, few enough to share."""
        workers = self.health.workers if self.health is not None else 1
        return max(1, min(most, max(2 * BATCH, 4 * workers)))

    def must_prove(self, now: float, *, is_last: bool) -> bool:
        if not self.unproven or self.is_checking or self.health is None:
            return False
        is_old = now - self.since >= PROVEN_SECONDS
        return len(self.unproven) >= PROVEN_EVERY or is_old or (is_last and self.in_flight == 0)

    def rest(self, now: float) -> None:
        self.rest_until = now + PAUSES[min(self.failures, len(PAUSES) - 1)]
        self.failures += 1


def usable(endpoints: Iterable[Endpoint], now: float) -> list[Endpoint]:
    """Servers to send to, the least busy first; one that keeps failing only while there is no other."""
    ready = [one for one in endpoints if one.rest_until <= now and one.health is not None and one.health.is_ready]
    listed = [one for one in ready if one.is_listed] or ready
    trusted = [one for one in listed if one.shun_until <= now] or listed
    return sorted(trusted, key=lambda one: one.in_flight)


def take(queue: deque[Job], endpoint: Endpoint, others: Sequence[Endpoint], room: int, now: float) -> list[Job]:
    """The next programs for this server, taken from the queue: no more than its share of what waits."""
    share = -(-len(queue) // max(1, len(others)))
    size, batch, skipped, weight = min(room, BATCH, share), list[Job](), list[Job](), 0
    names: set[str] = set()
    while queue and len(batch) < size and weight < BATCH_BYTES:
        job = queue.popleft()
        if job.done.done():  # nobody waits for it any more
            continue
        if job.not_before > now or job.program.id in names or not _is_fit(job, endpoint, others):
            skipped.append(job)
            continue
        batch.append(job)
        names.add(job.program.id)
        weight += job.size()
    queue.extendleft(reversed(skipped))
    return batch


def _is_fit(job: Job, endpoint: Endpoint, others: Sequence[Endpoint]) -> bool:
    """A program is not sent again to a server that failed it while another is there."""
    return endpoint.address not in job.avoid or all(one.address in job.avoid for one in others)
