"""Servers that stages need: started before the first that needs one, stopped when no runnable stage does.

A server that dies is started again on the same port, so a stage that is talking to it only sees a pause.
"""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soda_jobs.errors import Retry
from soda_jobs.local.processes import Process
from soda_jobs.log import event
from soda_jobs.plan import ServiceCommand

READY_SECONDS: Final = 300.0
RESTARTS: Final = 5
_POLL_SECONDS: Final = 0.1


@dataclass
class _Server:
    command: ServiceCommand
    port: int
    process: Process
    keeper: asyncio.Task[None]


class Services:
    """The servers running now, by name."""

    def __init__(self, env: Mapping[str, str], logs: Path) -> None:
        self._env, self._logs = env, logs
        self._servers: dict[str, _Server] = {}
        self._lock = asyncio.Lock()

    async def url(self, command: ServiceCommand) -> str:
        """The URL of a server that answers; starts it when it is not running yet. Raises Retry."""
        if command.url is not None:
            return command.url
        async with self._lock:
            server = self._servers.get(command.name)
            if server is not None and server.keeper.done():  # it died too often; begin anew
                await self._stop(command.name)
                server = None
            if server is None:
                port = _free_port()
                process = await self._start(command, port)
                keeper = asyncio.create_task(self._keep(command.name))
                server = self._servers[command.name] = _Server(command, port, process, keeper)
        await self._ready(server)
        return f"http://127.0.0.1:{server.port}"

    async def keep_only(self, wanted: Collection[str]) -> None:
        """Stop every server that is not in `wanted`."""
        for name in [name for name in self._servers if name not in wanted]:
            await self._stop(name)

    async def _start(self, command: ServiceCommand, port: int) -> Process:
        event("service_starting", service=command.name, port=port)
        return await Process.start(
            [*command.argv, "--port", str(port)],
            {**self._env, **command.env},
            log=self._logs / f"service-{command.name}.log",
            on_event=lambda found: None,
        )

    async def _keep(self, name: str) -> None:
        for _ in range(RESTARTS):
            code = await self._servers[name].process.wait()
            event("service_died", service=name, exit=code)
            await asyncio.sleep(0.5)
            server = self._servers[name]
            server.process = await self._start(server.command, server.port)

    async def _ready(self, server: _Server) -> None:
        deadline = time.monotonic() + READY_SECONDS
        url = f"http://127.0.0.1:{server.port}{server.command.health}"
        while not await asyncio.to_thread(_answers, url):
            if server.keeper.done() or time.monotonic() > deadline:
                log = self._logs / f"service-{server.command.name}.log"
                raise Retry(
                    f"the server {server.command.name} did not become ready; its log {log} ends with: "
                    + _last_line(log)
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _stop(self, name: str) -> None:
        server = self._servers.pop(name)
        server.keeper.cancel()
        await server.process.stop()
        event("service_stopped", service=name)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1][:300] if lines else "nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
