"""Programs to any number of sandboxes of each language, from the trusted side: one verdict for each.

    async with Dispatcher("http://{language}.example:8000", token=token) as sandboxes:
        verdict = await sandboxes.run(program)

A URL may be of one server, of a name with many addresses, or have `{language}` in it; a list is of servers that
are alike, and a mapping gives each language its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from soda_jobs.errors import InvalidInput
from soda_jobs.log import progress
from soda_jobs.sandbox import repeats
from soda_jobs.sandbox.lane import Lane
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.verdict_cache import VerdictCache

Sandboxes = str | Sequence[str] | Mapping[str, str | Sequence[str]]

IN_FLIGHT: Final = 64


def urls_of(sandboxes: Sandboxes, language: str) -> tuple[str, ...]:
    """The URLs for a language. Raises InvalidInput where there is none."""
    found = sandboxes.get(language, ()) if isinstance(sandboxes, Mapping) else sandboxes
    urls = (found,) if isinstance(found, str) else tuple(found)
    if not urls:
        raise InvalidInput(f"there is no sandbox for {language!r}; give its URL", field="sandbox")
    return tuple(url.replace("{language}", language) for url in urls)


class Dispatcher:
    """`run` may be called by any number of tasks, and `count` says how often it was. Programs at one server at
    once: at most `in_flight`."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        *,
        token: str | None = None,
        in_flight: int = IN_FLIGHT,
        cache: VerdictCache | None = None,
    ) -> None:
        self._sandboxes, self._token, self._in_flight, self._cache = sandboxes, token or "", in_flight, cache
        self._lanes: dict[tuple[str, ...], Lane] = {}
        self.count = 0

    async def __aenter__(self) -> Dispatcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        for lane in self._lanes.values():
            await lane.close()
        if self._cache is not None:
            self._cache.close()

    async def run(self, program: Program, *, runs: int = 1) -> Verdict:
        """The verdict; of `runs` whole runs that disagree it is `flaky`. A fault of the sandbox is tried twice
        more, elsewhere when there is another, and then kept as the verdict `sandbox_error`.

        Raises InvalidInput for a program or token that is refused, Retry when nothing was heard from any of its
        servers for two minutes.
        """
        lane = self._lane(program.language)
        self.count += 1
        if runs == 1:
            return await lane.run(program)
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(lane.run(copy, may_share=False)) for copy in repeats.copies(program, runs)]
        return repeats.merge([task.result() for task in found])

    def _lane(self, language: str) -> Lane:
        urls = urls_of(self._sandboxes, language)
        if urls not in self._lanes:
            self._lanes[urls] = Lane(urls, self._token, self._in_flight, self._cache)
        return self._lanes[urls]


class Progress:
    """Says how many programs are done and how many a second; call it with each verdict."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began = total, 0, time.monotonic()

    def __call__(self, _: Verdict) -> None:
        self._done += 1
        passed = time.monotonic() - self._began
        progress("programs", self._done, self._total, per_second=round(self._done / max(passed, 1e-3), 1))
