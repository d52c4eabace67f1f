"""Equal programs share one verdict: the cache has it, or the one that is on its way brings it for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from soda_jobs.sandbox.endpoint import Endpoint, Job
from soda_jobs.sandbox.types import Verdict
from soda_jobs.sandbox.verdict_cache import VerdictCache, is_kept, key


class Sharing:
    def __init__(self, cache: VerdictCache | None) -> None:
        self._cache = cache
        self._twins: dict[bytes, list[Job]] = {}

    def ask(self, job: Job, one: Endpoint) -> Verdict | Literal["waits"] | None:
        """The verdict that the cache has, or whether an equal program will bring it; None: run it on this server.

        Where programs can reach this machine's files nothing is shared, because they could reach the cache.
        """
        identity = one.health.identity.get(job.program.language) if one.health is not None else None
        if self._cache is None or identity is None or not job.may_share:
            return None
        if one.health is None or not one.health.is_isolated:
            return None
        name = key(job.program, identity)
        found = self._cache.get(name, job.program)
        if found is not None:
            return found
        if name in self._twins:
            self._twins[name].append(job)
            return "waits"
        self._twins[name] = []
        job.key = name
        return None

    def part(self, job: Job) -> list[Job]:
        """The equal programs that waited for this one; it speaks for them no longer."""
        name, job.key = job.key, None
        return self._twins.pop(name, []) if name is not None else []

    def settle(self, job: Job, verdict: Verdict) -> Sequence[tuple[Job, Verdict | None]]:
        """Keep the verdict; who waited for it, each with a copy of it, or with None when it must run itself."""
        name = job.key
        twins = self.part(job)
        if name is not None and self._cache is not None:
            self._cache.put(name, verdict)
        for twin in twins:
            twin.may_share = is_kept(verdict)
        return [(twin, replace(verdict, id=twin.program.id) if twin.may_share else None) for twin in twins]
