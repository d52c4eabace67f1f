"""Never faster than an endpoint allows: requests and tokens per minute, spread evenly.

`Schedule` decides, with a clock it is given; `Pace` waits. A request is booked with the most it may take (its
prompt and `max_tokens`, as endpoints book it), and what it did not take is given back when its reply is there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

_LONGEST_SLEEP: Final = 1.0  # seconds; replies meanwhile may bring the next turn forward


@dataclass(frozen=True)
class RateLimits:
    """What an endpoint allows one client; None: it does not say."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrent_requests: int | None = None

    def part(self, count: int) -> RateLimits:
        """The limits of one among `count` processes that share them."""
        requests, tokens, together = self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests
        return RateLimits(
            None if requests is None else requests / count,
            None if tokens is None else tokens / count,
            None if together is None else max(1, together // count),
        )


NO_LIMITS: Final = RateLimits()


class Schedule:
    """When the next request may go: each takes its share of a minute, and the next waits until that has passed."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds = 60 / per_minute if per_minute else 0.0  # that one unit takes
        self._free = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next may go; 0 when it may go now."""
        return max(0.0, self._free - now)

    def book(self, amount: float, now: float) -> None:
        self._free = max(self._free, now) + amount * self._seconds

    def give_back(self, amount: float) -> None:
        self._free -= amount * self._seconds


class Pace:
    """Lets requests through one after the other, in order of arrival, each when the limits allow it."""

    def __init__(self, limits: RateLimits) -> None:
        self._requests = Schedule(limits.requests_per_minute)
        self._tokens = Schedule(limits.tokens_per_minute)
        self._turn = asyncio.Lock()

    async def enter(self, tokens: int) -> None:
        """Wait until a request of at most so many tokens may go."""
        async with self._turn:
            while (wait := max(part.wait(time.monotonic()) for part in (self._requests, self._tokens))) > 0:
                await asyncio.sleep(min(wait, _LONGEST_SLEEP))
            self._requests.book(1, time.monotonic())
            self._tokens.book(tokens, time.monotonic())

    def give_back(self, tokens: int) -> None:
        """Take back tokens that were booked and not used."""
        self._tokens.give_back(tokens)
