"""Liveness, readiness and metrics over HTTP.

Alive means that the operator saw its own heartbeat come back through a watch: an answering server proves nothing.
"""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from soda_operator.lease import Lease
from soda_operator.metrics import WATCH_AGE

ECHO_SECONDS: Final = 180.0


class Vitals:
    """What the probes answer by."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._echoed = time.monotonic()
        self.is_blind = False

    def echo(self) -> None:
        self._echoed = time.monotonic()

    def why_dead(self) -> str:
        """Empty while alive. Waiting for the lease is alive, and so is an API server that is away for a while."""
        age = time.monotonic() - self._echoed
        WATCH_AGE.set(age)
        if self.is_blind:
            return "two full lists in a row found what the watches had missed"
        if self._lease.held and age > ECHO_SECONDS:
            return f"no watch has shown the operator's own heartbeat for {age:.0f} s"
        if not self._lease.held:
            self._echoed = time.monotonic()
        return ""


async def serve(vitals: Vitals, host: str, port: int) -> web.AppRunner:
    """GET /healthz, /readyz and /metrics."""

    async def healthz(_: web.Request) -> web.Response:
        why = vitals.why_dead()
        return web.Response(text=why or "ok", status=503 if why else 200)

    async def readyz(_: web.Request) -> web.Response:
        """Ready as soon as it listens: nothing sends traffic here, and a rollout must not wait for the Lease that
        the operator before still holds."""
        return web.Response(text="ok")

    async def metrics(_: web.Request) -> web.Response:
        vitals.why_dead()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
