"""How many requests to keep in flight, found out rather than set.

`AdaptiveLimit` decides, from the engine's own signals where it has some, else from completions, and from refusals;
its clock is given. `Gate` acts on it: it lets requests through in order of arrival, those of one prompt together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from soda_jobs.models.signals import Signals

_START: Final = 4
_FAST: Final = 2.0  # growth per window until the first window that was no better
_SLOW: Final = 1.25
_BETTER: Final = 1.05  # a larger limit is kept when throughput rose by this factor
_LONGEST_HOLD: Final = 16  # windows
_WINDOW_SECONDS: Final = 2.0  # of the engine's throughput, and at least so many tokens of each sequence:
_WINDOW_TOKENS: Final = 16
_SETTLE_TOKENS: Final = 4  # and first so many, in which it reads the prompts that a larger limit brought
_STALE_SECONDS: Final = 10.0  # signals older than this count as none
_CACHE_FULL: Final = 0.95  # used memory for keys and values beyond which an engine soon throws work away
_PREEMPTED: Final = 0.8  # what is left of the limit when it did
_SLACK: Final = (2, 8)  # a queue of two, or an eighth of what runs, keeps an engine fed


class AdaptiveLimit:
    """A limit that climbs while throughput climbs with it, and halves when the server refuses.

    A window is as many completions as the limit. After each the limit is tried larger; if throughput (tokens per
    second) did not rise, the last good limit is held for a while, twice as long each time, then tried again.
    Latency alone would be the wrong sign: batching servers answer slower and finish more as load grows.

    An engine that tells its load is measured by its own tokens per second, seconds after each change rather than
    after so many completions; and what it leaves waiting, or throws away for want of memory, cuts the limit.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = min(_START, ceiling)
        self._base = (self._limit, 0.0)  # the last limit known to be worth it, and its throughput
        self._growth = _FAST
        self._hold = 0  # windows left to hold; 0 while a larger limit is on trial
        self._next_hold = 1
        self._cut_at = float("-inf")
        self._seen: Signals | None = None  # the last signals, and when they came
        self._seen_at = float("-inf")
        self._mark: tuple[Signals, float] | None = None  # those that opened the window
        self._settled = False
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
        if now - self._seen_at < _STALE_SECONDS and self._seen is not None and self._seen.generated:
            return  # the engine's own numbers decide
        self._completions += 1
        self._tokens += max(tokens, 1)
        self._saturated &= saturated
        if self._completions < self._limit:
            return
        throughput = self._tokens / max(now - self._window_start, 1e-6)
        if self._saturated:
            self._decide(throughput)
        self._open_window(now)

    def observe(self, seen: Signals, *, now: float, saturated: bool) -> None:
        """Take in the engine's signals. Looks between which it made no step say nothing."""
        last, self._seen, self._seen_at = self._seen, seen, now
        if last is None or seen == last:
            return
        slack = max(_SLACK[0], seen.running // _SLACK[1])
        if seen.preemptions > last.preemptions:
            self._cut_to(int(self._limit * _PREEMPTED), now)
        elif seen.waiting > slack:
            # Its queue is everyone's; each who asks takes back the same share of his own.
            load = seen.running + seen.waiting
            self._cut_to(max(self._limit // 2, self._limit * (seen.running + slack) // load), now)
        elif seen.waiting or seen.cache >= _CACHE_FULL or not saturated or self._mark is None:
            self._mark = (seen, now)  # it has all it can take, or we have no more to give
        else:
            self._close_window(self._mark, seen, now)

    def _close_window(self, mark: tuple[Signals, float], seen: Signals, now: float) -> None:
        """Decide by the engine's throughput since `mark`, once that is long enough to tell."""
        (first, since), limit = mark, self._limit
        tokens = seen.generated - first.generated
        if not self._settled:
            if tokens >= _SETTLE_TOKENS * max(1, seen.running):
                self._mark, self._settled = (seen, now), True
            return
        if now - since < _WINDOW_SECONDS or tokens < _WINDOW_TOKENS * max(1, seen.running):
            return
        self._decide(tokens / (now - since))
        # The look right after a change still shows the time before it: the next one opens the window.
        self._mark, self._settled = ((seen, now), True) if self._limit == limit else (None, False)

    def _cut_to(self, limit: int, now: float) -> None:
        self._limit = max(1, limit)
        self._base, self._growth, self._hold = (self._limit, 0.0), _SLOW, 1
        self._mark, self._settled = None, False
        self._open_window(now)

    def overload(self, *, started: float, now: float) -> None:
        """Halve, once for all refusals of requests that were sent before the last halving."""
        if started <= self._cut_at:
            return
        self._cut_at = now
        self._cut_to(self._limit // 2, now)

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


_AHEAD: Final = 64  # places in the line among which one of the same group is preferred, and how often at most


@dataclass
class _Place:
    group: str
    given: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """Lets at most `limit.limit` through at once; may be shut for all, or for ever.

    First come first served, but those who were in before go first: what has been begun shall end. After them,
    requests of the group that went last go before others near the head of the line: their prompts begin alike, and
    an engine has that beginning computed already.
    """

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.in_flight = 0
        self._shut = False
        self._broken: Exception | None = None
        self._again: deque[_Place] = deque()
        self._waiting: deque[_Place] = deque()
        self._group = ""
        self._passed = 0  # how often the head of the line was passed over

    @property
    def saturated(self) -> bool:
        """True when someone waits."""
        return bool(self._waiting or self._again)

    async def enter(self, group: str = "", *, again: bool = False) -> None:
        """Wait for a place; raises what the gate was broken with."""
        if self._broken is not None:
            raise self._broken
        if not self.saturated and self._has_room():
            self.in_flight, self._group = self.in_flight + 1, group
            return
        place = _Place(group)
        (self._again if again else self._waiting).append(place)
        try:
            await place.given
        except asyncio.CancelledError:
            if place.given.done() and not place.given.cancelled() and place.given.exception() is None:
                self.leave()  # the place came just as the waiter was cancelled
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self.wake()

    def shut(self) -> None:
        """Let no one in until `open`."""
        self._shut = True

    def open(self) -> None:
        """Let requests in again."""
        self._shut = False
        self.wake()

    def break_with(self, error: Exception) -> None:
        """Raise `error` in everyone who waits or comes."""
        self._broken = error
        for place in (*self._again, *self._waiting):
            if not place.given.done():
                place.given.set_exception(error)
        self._again.clear()
        self._waiting.clear()

    def _has_room(self) -> bool:
        return not self._shut and self.in_flight < self.limit.limit

    def wake(self) -> None:
        """Let in whom the limit has room for; to be called when it has risen."""
        while self.saturated and self._has_room():
            place = self._again.popleft() if self._again else self._next()
            if not place.given.done():
                self.in_flight, self._group = self.in_flight + 1, place.group
                place.given.set_result(None)

    def _next(self) -> _Place:
        near = range(min(_AHEAD, len(self._waiting)) if self._passed < _AHEAD else 0)
        at = next((spot for spot in near if self._waiting[spot].group == self._group), 0)
        self._passed = self._passed + 1 if at else 0
        place = self._waiting[at]
        del self._waiting[at]
        return place
