"""Servers that stages need: started before the first that needs one, stopped when no runnable stage does.

A server that dies is started again on the same port, so a stage that is talking to it only sees a pause. One that
ends by itself twice before it was ever ready is not: its settings or its model are wrong, and it says so itself.
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

from soda_jobs.errors import ExitCode, GiveUp, InvalidInput, Retry, SandboxNotIsolated, SodaError, is_retryable
from soda_jobs.local.last_words import last_words
from soda_jobs.local.processes import Process
from soda_jobs.log import event
from soda_jobs.plan import ServiceCommand

READY_SECONDS: Final = 1800.0  # a large model loads and compiles for many minutes; a dead one is seen at once
RESTARTS: Final = 5
HOPELESS: Final = 2  # endings before it was ready; one may be a port that someone else took
_POLL_SECONDS: Final = 0.1
# Endings that another start would only repeat, and what they are raised as.
_FINAL: Final[Mapping[int, type[SodaError]]] = {
    ExitCode.INVALID_INPUT: InvalidInput,
    ExitCode.SANDBOX_NOT_ISOLATED: SandboxNotIsolated,
}


@dataclass
class _Server:
    command: ServiceCommand
    port: int
    process: Process
    keeper: asyncio.Task[None]
    log: Path
    log_start: int  # where this server's lines begin in its log
    ready: bool = False
    exit_code: int = int(ExitCode.RETRY)


class Services:
    """The servers running now, by name."""

    def __init__(self, env: Mapping[str, str], logs: Path) -> None:
        self._env, self._logs = env, logs
        self._servers: dict[str, _Server] = {}
        self._lock = asyncio.Lock()

    async def url(self, command: ServiceCommand) -> str:
        """The URL of a server that answers; starts it when it is not running yet. Raises what its end means."""
        if command.url is not None:
            return command.url
        async with self._lock:
            server = self._servers.get(command.name)
            if server is not None and server.keeper.done():  # it died too often; begin anew
                await self._stop(command.name)
                server = None
            if server is None:
                server = await self._open(command)
        await self._ready(server)
        return f"http://127.0.0.1:{server.port}"

    async def keep_only(self, wanted: Collection[str]) -> None:
        """Stop every server that is not in `wanted`."""
        for name in [name for name in self._servers if name not in wanted]:
            await self._stop(name)

    async def _open(self, command: ServiceCommand) -> _Server:
        port, log = _free_port(), self._log(command)
        log_start = log.stat().st_size if log.exists() else 0
        process = await self._start(command, port)
        keeper = asyncio.create_task(self._keep(command.name))
        self._servers[command.name] = server = _Server(command, port, process, keeper, log, log_start)
        return server

    def _log(self, command: ServiceCommand) -> Path:
        return self._logs / f"service-{command.name}.log"

    async def _start(self, command: ServiceCommand, port: int) -> Process:
        event("service_starting", service=command.name, port=port)
        return await Process.start(
            [*command.argv, "--port", str(port)],
            {**self._env, **command.env},
            log=self._log(command),
            on_event=lambda found: None,
        )

    async def _keep(self, name: str) -> None:
        for deaths in range(1, RESTARTS + 1):
            code = await self._servers[name].process.wait()
            event("service_died", service=name, exit=code)
            server = self._servers[name]
            server.exit_code = code
            if not server.ready and _hopeless(code, deaths):
                return
            await asyncio.sleep(0.5)
            server.process = await self._start(server.command, server.port)

    async def _ready(self, server: _Server) -> None:
        deadline = time.monotonic() + READY_SECONDS
        url = f"http://127.0.0.1:{server.port}{server.command.health}"
        while not await asyncio.to_thread(_answers, url):
            if server.keeper.done() or time.monotonic() > deadline:
                said = last_words(_since(server.log, server.log_start))
                name = f"the server {server.command.name}"
                if not (server.ready or is_retryable(server.exit_code)):
                    kind = _FINAL.get(server.exit_code, GiveUp)
                    raise kind(f"{name} ended with exit code {server.exit_code}: {said} (log: {server.log})")
                raise Retry(f"{name} did not become ready; its log {server.log} says: {said}")
            await asyncio.sleep(_POLL_SECONDS)
        server.ready = True

    async def _stop(self, name: str) -> None:
        server = self._servers.pop(name)
        server.keeper.cancel()
        await server.process.stop()
        event("service_stopped", service=name)


def _hopeless(code: int, deaths: int) -> bool:
    return code in _FINAL or (not is_retryable(code) and deaths >= HOPELESS)


def _since(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", errors="replace")


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
