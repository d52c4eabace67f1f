"""The servers behind some URLs: every address that their names have now, and who answers there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from soda_jobs.sandbox import wire
from soda_jobs.sandbox.endpoint import REST_SECONDS, Endpoint
from soda_jobs.sandbox.wire import FAILURES, Address

_LOOK_SECONDS: Final = 5.0
_HURRY_SECONDS: Final = 0.2


class Roster:
    """`keep` looks for ever; `heard_at` is the last sign of life of any server, `why` what went wrong last."""

    def __init__(self, urls: Sequence[str], changed: Callable[[], None]) -> None:
        self.urls, self._changed = urls, changed
        self._known: dict[Address, Endpoint] = {}
        self._hurry = asyncio.Event()
        self.heard_at = time.monotonic()
        self.why = "it has not answered yet"

    def servers(self) -> list[Endpoint]:
        return list(self._known.values())

    def heard(self) -> None:
        self.heard_at = time.monotonic()

    def look(self) -> None:
        """Look now rather than in a while."""
        self._hurry.set()

    def blame(self, one: Endpoint, error: BaseException) -> None:
        self.why = f"{one.address}: {error or type(error).__name__}"

    async def keep(self) -> None:
        """Raises InvalidInput for a URL that cannot be one of a sandbox."""
        while True:
            self._hurry.clear()
            await self._list()
            await asyncio.gather(*(self._meet(one) for one in self.servers() if _is_due(one)))
            self._changed()
            is_missing = not self._known or any(one.health is None for one in self._known.values())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), _HURRY_SECONDS if is_missing else _LOOK_SECONDS)

    async def _list(self) -> None:
        found: set[Address] = set()
        for url in self.urls:
            try:
                found.update(await wire.resolve(url))
            except OSError as error:
                self.why = f"{url}: {error}"
        for address in sorted(found - self._known.keys(), key=str):
            self._known[address] = Endpoint(address)
        for address, one in list(self._known.items()):
            one.is_listed = address in found or not found
            if not (one.is_listed or one.in_flight or one.unproven or one.is_checking):
                del self._known[address]

    async def _meet(self, one: Endpoint) -> None:
        try:
            found = await wire.health(one.address)
        except FAILURES as error:
            self.blame(one, error)
            one.rest(time.monotonic())
            return
        if any(other.health is not None and other.health.server == found.server for other in self._others(one)):
            one.rest_until = time.monotonic() + REST_SECONDS  # another way to a server that we know
            return
        one.health = found
        if found.is_ready:
            self.heard()
        else:
            self.why = f"{one.address}: it is not ready"
            one.rest(time.monotonic())

    def _others(self, one: Endpoint) -> list[Endpoint]:
        return [other for other in self._known.values() if other is not one]


def _is_due(one: Endpoint) -> bool:
    is_unknown = one.health is None or not one.health.is_ready
    return is_unknown and not one.in_flight and one.rest_until <= time.monotonic()
