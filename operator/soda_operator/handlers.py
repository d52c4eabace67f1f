"""kopf wakes, we work: watch events mark keys dirty, and nothing else happens in a handler.

Run by `python -m soda_operator`. See docs/operator.md for why only `on.event` is used.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

import kopf

from soda_jobs.errors import ExitCode, SodaError
from soda_jobs.log import event
from soda_jobs.names import RUN_LABEL
from soda_operator import config, health, metrics
from soda_operator.cluster import Cluster
from soda_operator.controller import WORKERS, Controller
from soda_operator.edges import NoDiffBase, NoProgress
from soda_operator.lease import Lease

RESYNC_SECONDS: Final = 300.0
SETTLED_SECONDS: Final = 3.0
LEASE_NAME: Final = "soda-operator"
OPERATOR_LABEL: Final = "app.kubernetes.io/name"


class Operator:
    """Everything that lives as long as the process."""

    controller: Controller
    cluster: Cluster
    lease: Lease
    vitals: health.Vitals

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.synced = asyncio.Event()
        self.relisted = 0.0  # when a watch last told what it had listed
        self._is_time = False

    async def start(self) -> None:
        settings = config.read(os.environ)
        self.cluster = await Cluster.connect()
        namespace = os.environ.get("POD_NAMESPACE") or settings.namespace or "default"
        # A container that starts again in its pod is still the holder of the lease, and goes on at once.
        identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
        self.lease = Lease(self.cluster, namespace, LEASE_NAME, identity)
        self.controller = Controller(self.cluster, settings, self.lease)
        self.vitals = health.Vitals(self.lease)
        port = int(os.environ.get("SODA_PORT", "8080"))
        await health.serve(self.vitals, os.environ.get("SODA_HOST", "0.0.0.0"), port)
        self.tasks = [
            asyncio.create_task(self.lease.keep(self.synced.clear)),
            asyncio.create_task(self._resync()),
            *(asyncio.create_task(self._work()) for _ in range(WORKERS)),
        ]
        for task in self.tasks:
            task.add_done_callback(_must_go_on)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        with suppress(SodaError):
            await self.lease.release()
        await self.cluster.close()

    async def _work(self) -> None:
        await self.synced.wait()
        await self.controller.work()

    async def _resync(self) -> None:
        """A full list when the lease is taken, so that nothing is decided by half a picture; and again later, or
        when a watch had to begin anew: what was deleted meanwhile it does not tell."""
        rounds_missed = 0
        while True:
            if not self.lease.held:
                await asyncio.sleep(0.2)
                continue
            started = time.monotonic()
            try:
                missed = await self.controller.resync()
            except SodaError as error:
                event("resync_failed", error=str(error))
                await asyncio.sleep(2.0)
                continue
            is_first = not self.synced.is_set()
            event("resync", missed=missed, first=is_first, seconds=round(time.monotonic() - started, 3))
            if not is_first and self._is_time:
                metrics.WATCH_MISSED.inc(missed)
                rounds_missed = rounds_missed + 1 if missed else 0
                self.vitals.is_blind = rounds_missed >= 2  # once may be a slow stream, twice is a dead one
            self.synced.set()
            self._is_time = await self._pause(RESYNC_SECONDS)

    async def _pause(self, seconds: float) -> bool:
        """Sleep, but no longer than until the lease is taken, or a watch has begun, anew. True after all of it."""
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            if not self.synced.is_set() or started < self.relisted < time.monotonic() - SETTLED_SECONDS:
                return False
            await asyncio.sleep(0.5)
        return True


def _must_go_on(task: asyncio.Task[Any]) -> None:
    """A part that ended by a bug would leave an operator that looks alive and does nothing."""
    if not task.cancelled() and (error := task.exception()) is not None:
        event("operator_crashed", error=repr(error))
        os._exit(ExitCode.BUG)


_operator = Operator()


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    configure(settings)
    await _operator.start()


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    await _operator.stop()


def configure(settings: kopf.OperatorSettings) -> None:
    """What differs from kopf's defaults, and why: docs/operator.md."""
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 50
    settings.networking.request_timeout = 20
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.process.ultimate_exiting_timeout = 15
    settings.persistence.finalizer = "soda.dev/kopf"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.scanning.disabled = bool(os.environ.get("SODA_NAMESPACE"))
    for kind in ("jobs", "pods"):
        settings.watching.label_selectors[kind] = RUN_LABEL
    settings.watching.label_selectors["leases"] = f"{OPERATOR_LABEL}=soda-operator"


def _note(kind: str, type_: str | None, raw: Any) -> None:
    _operator.controller.seen(kind, type_, raw)
    if type_ is None:  # kopf's word for what it listed
        _operator.relisted = time.monotonic()


@kopf.on.event("soda.dev", "v1alpha1", "distillationruns")
async def run_changed(type: str | None, event: Any, **_: Any) -> None:  # noqa: A002 - kopf names it
    _note("DistillationRun", type, event["object"])


@kopf.on.event("batch", "v1", "jobs", labels={RUN_LABEL: kopf.PRESENT})
async def job_changed(type: str | None, event: Any, **_: Any) -> None:  # noqa: A002 - kopf names it
    _note("Job", type, event["object"])


@kopf.on.event("", "v1", "pods", labels={RUN_LABEL: kopf.PRESENT})
async def pod_changed(type: str | None, event: Any, **_: Any) -> None:  # noqa: A002 - kopf names it
    _note("Pod", type, event["object"])


@kopf.on.event("coordination.k8s.io", "v1", "leases", labels={OPERATOR_LABEL: "soda-operator"})
async def lease_changed(spec: Any, **_: Any) -> None:
    if spec.get("holderIdentity") == _operator.lease.identity:
        _operator.vitals.echo()
