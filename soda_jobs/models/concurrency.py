"""How many requests to keep in flight, found out rather than set.

`AdaptiveLimit` decides, from completions and refusals and a clock it is given. `Gate` acts on it: it lets requests
through in order of arrival.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_START: Final = 4
_FAST: Final = 2.0  # growth per window until the first window that was no better
_SLOW: Final = 1.25
_BETTER: Final = 1.05  # a larger limit is kept when throughput rose by this factor
_LONGEST_HOLD: Final = 16  # windows


class AdaptiveLimit:
    """A limit that climbs while throughput climbs with it, and halves when the server refuses.

    A window is as many completions as the limit. After each the limit is tried larger; if throughput (tokens per
    second) did not rise, the last good limit is held for a while, twice as long each time, then tried again.
    Latency alone would be the wrong sign: batching servers answer slower and finish more as load grows.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = min(_START, ceiling)
        self._base = (self._limit, 0.0)  # the last limit known to be worth it, and its throughput
        self._growth = _FAST
        self._hold = 0  # windows left to hold; 0 while a larger limit is on trial
        self._next_hold = 1
        self._cut_at = float("-inf")
        self._open_window(None)

    @property
    def limit(self) -> int:
        """Requests to keep in flight, from 1 to the ceiling."""
        return self._limit

    def success(self, tokens: int, *, now: float, saturated: bool) -> None:
        """Count a completion. Windows in which no request had to wait say nothing about the limit."""
        if self._window_start is None:  # the first completion only starts the clock
            self._open_window(now)
            return
        self._completions += 1
        self._tokens += max(tokens, 1)
        self._saturated &= saturated
        if self._completions < self._limit:
            return
        throughput = self._tokens / max(now - self._window_start, 1e-6)
        if self._saturated:
            self._decide(throughput)
        self._open_window(now)

    def overload(self, *, started: float, now: float) -> None:
        """Halve, once for all refusals of requests that were sent before the last halving."""
        if started <= self._cut_at:
            return
        self._cut_at = now
        self._limit = max(1, self._limit // 2)
        self._base, self._growth, self._hold = (self._limit, 0.0), _SLOW, 1
        self._open_window(now)

    def _decide(self, throughput: float) -> None:
        limit, best = self._base
        if self._hold:
            self._hold -= 1
            self._base = (self._limit, 0.7 * best + 0.3 * throughput if best else throughput)
        elif throughput > best * _BETTER:
            self._base, self._next_hold = (self._limit, throughput), 1
        else:
            self._growth, self._hold, self._limit = _SLOW, self._next_hold, limit
            self._next_hold = min(2 * self._next_hold, _LONGEST_HOLD)
        if not self._hold:
            self._limit = min(self._ceiling, max(self._limit + 1, int(self._limit * self._growth)))

    def _open_window(self, now: float | None) -> None:
        self._window_start = now
        self._completions = self._tokens = 0
        self._saturated = True


class Gate:
    """Lets at most `limit.limit` through at once, first come first served; may be shut for all, or for ever."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.in_flight = 0
        self._shut = False
        self._broken: Exception | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def saturated(self) -> bool:
        """True when someone waits."""
        return bool(self._waiting)

    async def enter(self) -> None:
        """Wait for a place; raises what the gate was broken with."""
        if self._broken is not None:
            raise self._broken
        if not self._waiting and self._has_room():
            self.in_flight += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # the place came just as the waiter was cancelled
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._wake()

    def shut(self) -> None:
        """Let no one in until `open`."""
        self._shut = True

    def open(self) -> None:
        """Let requests in again."""
        self._shut = False
        self._wake()

    def break_with(self, error: Exception) -> None:
        """Raise `error` in everyone who waits or comes."""
        self._broken = error
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def _has_room(self) -> bool:
        return not self._shut and self.in_flight < self.limit.limit

    def _wake(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
