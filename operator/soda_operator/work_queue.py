"""Keys to look at: each once in the queue and never in two workers; failures come again after a growing pause."""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import Final

Key = tuple[str, str]  # namespace, name
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0


class WorkQueue:
    """`add` marks a key dirty; `get` hands it to one worker; a key that gets dirty meanwhile comes again after."""

    def __init__(self) -> None:
        self._ready: dict[Key, float] = {}  # in order of arrival -> when it became dirty
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}  # the earliest time that is still meant
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}  # dirty while busy
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Look at it as soon as possible."""
        now = asyncio.get_running_loop().time()
        if key in self._busy:
            self._again.setdefault(key, now)
        else:
            self._ready.setdefault(key, now)
        self._changed.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Look at it once in so many seconds; an earlier time that was asked for stays."""
        at = asyncio.get_running_loop().time() + seconds
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._later, (at, key))
            self._changed.set()

    async def get(self) -> tuple[Key, float]:
        """The next key, and when it became dirty."""
        while True:
            now = asyncio.get_running_loop().time()
            self._take_due(now)
            if self._ready:
                key = next(iter(self._ready))
                since = self._ready.pop(key)
                self._busy.add(key)
                return key, since
            self._changed.clear()
            pause = self._later[0][0] - now if self._later else None
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                continue

    def _take_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            at, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)

    def done(self, key: Key) -> None:
        """The look ended well."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Key, after: float | None = None) -> None:
        """The look ended in an error: again after a pause that doubles, with some chance in it."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (count - 1)) * random.uniform(0.8, 1.2)
        self._again.pop(key, None)  # whatever was new is seen then
        self._release(key)
        self.add_later(key, max(pause, after or 0.0))

    def _release(self, key: Key) -> None:
        self._busy.discard(key)
        since = self._again.pop(key, None)
        if since is not None:
            self._ready.setdefault(key, since)
            self._changed.set()
