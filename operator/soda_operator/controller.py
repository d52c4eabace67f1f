"""The thin part that acts: take a key, look, decide, write. Everything it knows comes from the cache.

The order of writes is the decision's: finalizers, status, deletions, objects. Any error puts the key back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from soda_jobs.errors import Retry, SodaError
from soda_jobs.log import event
from soda_jobs.names import CLEANUP, RUN_LABEL
from soda_operator import metrics
from soda_operator.accept import Accepted, accept
from soda_operator.cache import KINDS, Cache, is_at_rest
from soda_operator.cluster import Cluster, Conflict, Gone, Refused
from soda_operator.config import Config
from soda_operator.decision import Decision, Raw, Ref
from soda_operator.faults import Fault
from soda_operator.lease import Lease
from soda_operator.notes import notes
from soda_operator.observed import Job, Observed, Pod, Warned
from soda_operator.reconcile import reconcile
from soda_operator.summary import TERMINAL
from soda_operator.surroundings import Surroundings
from soda_operator.work_queue import Key, WorkQueue

WORKERS: Final = 8
ASKS: Final = 8  # questions about warnings and progress at once
STARTING_SECONDS: Final = 5.0  # how often a run with something that has not started is looked at
RUNNING_SECONDS: Final = 15.0
GARBAGE_SECONDS: Final = 2.0


class Controller:
    """Workers over one queue."""

    def __init__(
        self, cluster: Cluster, config: Config, lease: Lease, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster, self._config, self._lease, self._clock = cluster, config, lease, clock
        self.cache, self.queue = Cache(), WorkQueue()
        self._accepted: dict[Key, tuple[tuple[str, int], Accepted | Fault]] = {}
        self._around: dict[Key, Surroundings] = {}
        self._applied: dict[Key, dict[str, str]] = {}
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._asks = asyncio.Semaphore(ASKS)
        self._unseen: dict[tuple[str, str, str], int] = {}  # versions that a list found before any watch

    async def work(self) -> None:
        """One worker: never returns."""
        while True:
            key, since = await self.queue.get()
            metrics.QUEUE.set(len(self.queue))
            if not self._lease.held:
                self.queue.done(key)  # the lease, once taken, makes every key dirty again
                continue
            try:
                with metrics.RECONCILE.time():
                    await self._reconcile(key)
                self.queue.done(key)
            except Conflict:
                metrics.ERRORS.labels(kind="conflict").inc()
                self.queue.failed(key)
            except SodaError as error:
                metrics.ERRORS.labels(kind=type(error).__name__.lower()).inc()
                event("reconcile_failed", namespace=key[0], run=key[1], error=str(error))
                self.queue.failed(key, error.after if isinstance(error, Retry) else None)
            except Exception as error:  # noqa: BLE001 - a bug about one run must not end the others
                metrics.ERRORS.labels(kind="bug").inc()
                event("reconcile_crashed", namespace=key[0], run=key[1], error=repr(error))
                self.queue.failed(key)
            metrics.WAIT.observe(asyncio.get_running_loop().time() - since)

    async def _reconcile(self, key: Key) -> None:
        resource = self.cache.runs.get(key)
        if resource is None:
            self._forget(key)
            return
        if is_at_rest(resource):  # what is kept of it is not enough to write its status
            jobs = self.cache.jobs(key).values()
            if all(job.is_deleting or (job.outcome and not job.service) for job in jobs):
                return
            resource = await self._cluster.get("DistillationRun", *key)
        now = self._clock()
        around = self._around.setdefault(key, Surroundings())
        seen, pods = dict(self.cache.jobs(key)), dict(self.cache.pods(key))  # watches go on while we ask
        uid = resource["metadata"]["uid"]
        if await self._is_in_the_way(key, uid, seen):
            self.queue.add_later(key, GARBAGE_SECONDS)
            return
        own = {name: job for name, job in seen.items() if job.owner == uid}
        is_over = (resource.get("status") or {}).get("state") in TERMINAL
        if not is_over:
            await around.last_words(self._cluster, key[0], own, pods, now)
        observed = Observed(own, pods, around.warnings, around.progress, around.refused)
        decision = reconcile(resource, self._accept(key, resource), observed, self._config, now)
        await self._act(key, resource, decision, around, observed)
        if decision.again is not None:
            self.queue.add_later(key, decision.again)
        if not is_over and key not in self._asking:
            self._asking[key] = asyncio.create_task(self._ask(key, around, own, pods, now))
        self._look_soon(key, observed)

    async def _ask(
        self, key: Key, around: Surroundings, jobs: Mapping[str, Job], pods: Mapping[str, Pod], now: float
    ) -> None:
        """What no watch tells, beside the looks; news is a reason to look again."""
        try:
            async with self._asks:
                if await around.refresh(self._cluster, key[0], jobs, pods, now):
                    self.queue.add(key)
        except SodaError as error:  # it is asked again when it is due
            event("not_told", namespace=key[0], run=key[1], error=str(error))
        finally:
            del self._asking[key]

    async def _is_in_the_way(self, key: Key, uid: str, jobs: Mapping[str, Job]) -> bool:
        """Whether an earlier run of this name is still being removed. Its Jobs are ours to remove: the garbage
        collector may be minutes late, and of a cleanup Job it knows nothing."""
        earlier = [job for job in jobs.values() if job.owner not in ("", uid)]
        for job in earlier:
            is_cleaning = job.stage == CLEANUP and not job.outcome
            if not job.is_deleting and not is_cleaning and self._lease.held:
                await self._cluster.delete("Job", key[0], job.name, uid=job.uid)
        return bool(earlier)

    def _look_soon(self, key: Key, observed: Observed) -> None:
        """Warnings and progress are not watched, so they are asked for again."""
        open_jobs = [job for job in observed.jobs.values() if not job.outcome]
        if any(not any(pod.is_ready for pod in observed.pods_of(job.name)) for job in open_jobs):
            self.queue.add_later(key, STARTING_SECONDS)
        elif open_jobs:
            self.queue.add_later(key, RUNNING_SECONDS)

    async def _act(
        self, key: Key, resource: Raw, decision: Decision, around: Surroundings, observed: Observed
    ) -> None:
        if decision.finalizers is not None:
            resource = await self._cluster.put_finalizers(resource, decision.finalizers)
            self.cache.put("DistillationRun", resource)
        services = [ref for ref in decision.delete if ref[0] == "Service"]
        if services:  # before the status that no longer names them: nothing else would tell that they are there
            await self._must_be_current(key, resource)
            await self._delete(key, services, observed)
        if decision.status is not None:
            resource = await self._write_status(resource, decision.status)
        elif any(item["kind"] == "Job" for item in decision.apply):
            await self._must_be_current(key, resource)
        if decision.delete_run:
            same = {name: resource["metadata"][name] for name in ("uid", "resourceVersion")}
            await self._cluster.delete("DistillationRun", *key, **same)
            return
        await self._delete(key, [ref for ref in decision.delete if ref not in services], observed)
        await self._apply(key, decision.apply, around)

    async def _delete(self, key: Key, refs: Sequence[Ref], observed: Observed) -> None:
        for kind, name in refs:
            self._check_lease()
            same = {"uid": observed.jobs[name].uid} if kind == "Job" and name in observed.jobs else {}
            was_there = await self._cluster.delete(kind, key[0], name, **same)
            if kind == "Job" and not was_there:
                self.cache.forget(kind, key, key[0], name)
            self._applied.get(key, {}).pop(f"{kind}/{name}", None)

    async def _write_status(self, resource: Raw, status: Raw) -> Raw:
        self._check_lease()
        old = resource.get("status") or {}
        written = await self._cluster.put_status({**resource, "status": status})
        self.cache.put("DistillationRun", written)
        _count(old, status)
        for item in notes(resource, old, status, self._clock()):
            try:
                await self._cluster.create(item)
            except (Conflict, Gone):  # it is told already, or there is no run to tell of
                continue
            except Refused as error:  # an Event is a courtesy: the status says the same
                event("event_refused", namespace=resource["metadata"]["namespace"], error=str(error))
        return written

    async def _must_be_current(self, key: Key, resource: Raw) -> None:
        """A Job that is missing in the cache may be there: make it only from the newest status there is."""
        newest = await self._cluster.get("DistillationRun", *key)
        if newest["metadata"]["resourceVersion"] != resource["metadata"]["resourceVersion"]:
            raise Conflict("the run has changed since it was seen")

    async def _apply(self, key: Key, manifests: list[Raw], around: Surroundings) -> None:
        """Make what is missing. What the API server refuses is told in the status and does not stop the rest."""
        applied = self._applied.setdefault(key, {})
        for item in manifests:
            name = f"{item['kind']}/{item['metadata']['name']}"
            digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()
            if item["kind"] != "Job" and applied.get(name) == digest:
                continue
            self._check_lease()
            try:
                made = await self._cluster.apply(item)
            except Refused as error:
                news = Warned(error.reason, str(error))
                if around.refused.get(item["metadata"]["name"]) != news:
                    around.refused[item["metadata"]["name"]] = news
                    self.queue.add(key)
                self.queue.add_later(key, STARTING_SECONDS)
                continue
            applied[name] = digest
            if made is not None and item["kind"] == "Job" and self.cache.put("Job", made) is not None:
                self.queue.add(key)  # its watch event is no news any more
            around.refused.pop(item["metadata"]["name"], None)

    def _check_lease(self) -> None:
        if not self._lease.held:
            raise Retry("another operator may hold the lease")

    def _accept(self, key: Key, resource: Raw) -> Accepted | Fault:
        meta = resource["metadata"]
        version = (meta["uid"], meta["generation"])
        known = self._accepted.get(key)
        if known is None or known[0] != version:
            known = self._accepted[key] = (version, accept(resource, self._config))
        return known[1]

    def _forget(self, key: Key) -> None:
        for table in (self._accepted, self._around, self._applied):
            table.pop(key, None)

    async def resync(self) -> int:
        """List everything anew. The safety net of lost events.

        Returns how many objects the list before had found and no watch has told of since: a list is often a
        moment ahead of the watches, so only the next one can say what was lost."""
        missed = len(self._unseen)
        self._unseen.clear()
        self._applied.clear()
        for kind in KINDS:
            selector = {} if kind == "DistillationRun" else {"labelSelector": RUN_LABEL}
            before = {(namespace, name): key for key, namespace, name in self.cache.names(kind)}
            async for raw in self._cluster.list(kind, self._config.namespace, **selector):
                raw.setdefault("kind", kind)
                raw.setdefault("apiVersion", "soda.dev/v1alpha1")
                before.pop((raw["metadata"]["namespace"], raw["metadata"]["name"]), None)
                key = self.cache.put(kind, raw)
                if key is not None:
                    meta = raw["metadata"]
                    self._unseen[kind, meta["namespace"], meta["name"]] = int(meta["resourceVersion"])
                    self.queue.add(key)
            for (namespace, name), key in before.items():
                await self._vanished(kind, key, namespace, name)
        for key, resource in self.cache.runs.items():
            if not is_at_rest(resource):
                self.queue.add(key)
        self._count_runs()
        return missed

    def seen(self, kind: str, type_: str | None, raw: Raw) -> None:
        """A watch told of an object."""
        meta = raw["metadata"]
        place = (kind, meta["namespace"], meta["name"])
        if self._unseen.get(place, 0) <= int(meta["resourceVersion"]):
            self._unseen.pop(place, None)
        if type_ == "DELETED":
            self.queue.add(self.cache.remove(kind, raw))
            return
        key = self.cache.put(kind, raw)
        if key is not None:
            self.queue.add(key)

    async def _vanished(self, kind: str, key: Key, namespace: str, name: str) -> None:
        """An object that is known but was not listed: it may also have been made since the list began."""
        try:
            await self._cluster.get(kind, namespace, name)
        except Gone:
            self.cache.forget(kind, key, namespace, name)
            self.queue.add(key)

    def _count_runs(self) -> None:
        counts: dict[str, int] = {}
        for resource in self.cache.runs.values():
            state = (resource.get("status") or {}).get("state") or "Pending"
            counts[state] = counts.get(state, 0) + 1
        metrics.RUNS.clear()
        for state, count in counts.items():
            metrics.RUNS.labels(state=state).set(count)


def _count(old: Raw, new: Raw) -> None:
    before: dict[str, Any] = {row["name"]: row for row in old.get("stages", ())}
    for row in new.get("stages", ()):
        was = before.get(row["name"], {})
        if row["state"] != was.get("state") and row["state"] in ("done", "reused", "failed"):
            metrics.STAGES.labels(state=row["state"]).inc()
        if row.get("reason") and row.get("reason") != was.get("reason"):
            metrics.FAULTS.labels(reason=row["reason"]).inc()
    metrics.GPU_SECONDS.inc(max(0, new.get("gpuSeconds", 0) - old.get("gpuSeconds", 0)))
