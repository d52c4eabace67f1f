"""The sandbox as a server: programs in, verdicts out as they finish. HTTP/1.1 on loopback or a Unix socket.

    GET  /healthz   {"ready": true, "languages": {"python": "3.11.7", "go": null, …}, "isolation": {…}, …}
    POST /v1/run    one program a line in; then a line that says which server speaks, `started` and its verdict for
                    each program as they happen, `void` when a canary was wrong; empty lines mean "alive"
    POST /v1/check  run the canaries, unless few programs ran since: `wrong` is empty when all was right

With SODA_SANDBOX_TOKEN set, both POSTs want it as a bearer token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import os
import secrets
import signal
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, Protocol

from soda_jobs.errors import InvalidInput, Retry, SandboxNotIsolated
from soda_jobs.log import event
from soda_jobs.sandbox import selftest
from soda_jobs.sandbox.canary import Canaries, CanariesWrong
from soda_jobs.sandbox.httpd import (
    MAX_HEAD,
    Refused,
    Request,
    begin,
    end,
    read_body,
    read_head,
    read_programs,
    reply,
    say,
)
from soda_jobs.sandbox.identity import identities
from soda_jobs.sandbox.pool import TOKEN, OnStart, Pool, WorkerDied
from soda_jobs.sandbox.types import Program, Verdict, to_dict

ALIVE_SECONDS: Final = 2.0
_HEAD_SECONDS: Final = 60.0


async def serve(
    *,
    port: int,
    host: str,
    socket_path: str | None,
    workers: int,
    require_isolation: bool = False,
    require_gvisor: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidInput when the address cannot be used, SandboxNotIsolated where
    a required wall is missing, before any program is taken, and Retry when its canaries stay wrong."""
    token = os.environ.get(TOKEN, "")
    if socket_path is None and not token and not _is_loopback(host):
        raise InvalidInput(f"{host} can be reached from outside, so {TOKEN} must be set", field="--host")
    pool = Pool(workers)
    server = Server(pool, token)
    try:
        if socket_path is not None:
            listener = await asyncio.start_unix_server(server.handle, socket_path, limit=MAX_HEAD)
            os.chmod(socket_path, 0o600)
            address: dict[str, Any] = {"url": f"unix:{socket_path}"}
        else:
            listener = await asyncio.start_server(server.handle, host, port, limit=MAX_HEAD)
            chosen = listener.sockets[0].getsockname()[1]
            address = {"url": f"http://{host}:{chosen}", "port": chosen}
    except OSError as error:
        where = socket_path or f"{host}:{port}"
        raise InvalidInput(f"cannot listen on {where}: {error.strerror or error}", field="--port") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stopped.set)
    try:
        await _probe(pool)
        missing = [text for text in (pool.walls["missing"],) if text]
        missing += await selftest.faults(pool, require_gvisor=require_gvisor)
        if missing and (require_isolation or require_gvisor):
            raise SandboxNotIsolated(f"the sandbox lacks a wall: {'; '.join(missing)}")
        pool.walls["missing"] = "; ".join(missing)
        wrong = await server.prove()
        if server.is_unwatched and require_isolation:
            raise SandboxNotIsolated(f"the sandbox keeps no watch: {wrong}")
        if server.failure is None:
            event("sandbox_ready", **address, workers=workers, languages=pool.versions)
        if pool.walls["missing"]:
            event("sandbox_not_isolated", missing=pool.walls["missing"])
        await server.stopped.wait()
        if server.failure is not None:
            raise server.failure
    finally:
        listener.close()
        await server.close()
        await pool.close()
        event("sandbox_stopped", **address)


async def _probe(pool: Pool) -> None:
    try:
        await pool.probe()
    except WorkerDied as error:
        raise Retry(f"the sandbox's worker did not start: {error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Workers(Protocol):
    """What the server needs of its pool."""

    walls: dict[str, Any]
    versions: dict[str, str | None]
    size: int
    is_gvisor: bool

    @property
    def trouble(self) -> str: ...

    async def run(self, program: Program, on_start: OnStart = ...) -> Verdict: ...

    async def restart(self) -> None: ...


class Server:
    """`prove` makes it ready; `stopped` is set when it must end, with `failure` when it cannot judge."""

    def __init__(self, pool: Workers, token: str) -> None:
        self._pool, self._token = pool, token
        self._name = secrets.token_hex(8)
        self._canaries = Canaries(pool.run, self._heal)
        self._streams: set[asyncio.Queue[dict[str, Any]]] = set()
        self._open: set[asyncio.Task[Any]] = set()
        self._is_ready = False
        self.failure: Retry | None = None
        self.is_unwatched = False
        self.stopped = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except Refused as refused:
            with contextlib.suppress(ConnectionError):
                await reply(writer, refused.code, {"error": refused.sentence})
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client went away or does not speak HTTP
        except asyncio.CancelledError:
            pass  # we are stopping
        finally:
            self._open.discard(task)
            writer.close()

    async def prove(self) -> str:
        """Run the canaries where they are due; which one was wrong, or the empty text."""
        try:
            wrong = await self._canaries.check()
        except CanariesWrong as error:
            self.failure = Retry(f"the sandbox judges wrong: {error}")
            self.is_unwatched = error.is_unwatched
            self.stopped.set()
            return str(error)
        self._is_ready = True
        return wrong

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _heal(self, wrong: str) -> None:
        self._is_ready = False
        for stream in self._streams:
            stream.put_nowait({"void": wrong})
        await self._pool.restart()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await asyncio.wait_for(read_head(reader), _HEAD_SECONDS)
        route = (request.method, request.path)
        if route == ("GET", "/healthz"):
            health = self._health()
            await reply(writer, 200 if health["ready"] else 503, health)
        elif route == ("POST", "/v1/run"):
            self._check_token(request)
            programs = read_programs(await read_body(reader, request))
            if not self._is_ready:
                raise Refused(503, "the sandbox is checking itself; send the programs again in a while")
            await self._run(programs, writer)
        elif route == ("POST", "/v1/check"):
            self._check_token(request)
            await self._check(writer)
        else:
            known = "GET /healthz, POST /v1/run, POST /v1/check"
            raise Refused(404, f"{request.method} {request.path} is not one of {known}")

    def _health(self) -> dict[str, Any]:
        walls, trouble = self._pool.walls, self._pool.trouble
        isolation = {
            "namespaces": walls.get("namespaces", False),
            "own_user": walls.get("program_id") is not None,
            "missing": walls.get("missing", ""),
        }
        return {
            "ready": self._is_ready and not trouble,
            "trouble": trouble,
            "languages": self._pool.versions,
            "isolation": isolation,
            "workers": self._pool.size,
            "identity": identities(self._pool.versions, walls, self._pool.is_gvisor),
            **self._who(),
        }

    def _who(self) -> dict[str, Any]:
        return {"server": self._name, "epoch": self._canaries.epoch}

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refused(401, f"the token is not this sandbox's; set {TOKEN} to the same value on both sides")

    async def _run(self, programs: list[Program], writer: asyncio.StreamWriter) -> None:
        rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        rows.put_nowait(self._who())

        async def run(program: Program) -> None:
            verdict = await self._pool.run(program, lambda: rows.put_nowait({"started": program.id}))
            self._canaries.saw(verdict)
            rows.put_nowait(to_dict(verdict))
            if self._canaries.is_due:
                self._keep(self.prove())

        begin(writer)
        tasks = [asyncio.create_task(run(program)) for program in programs]
        self._streams.add(rows)
        try:
            left = len(tasks)
            while left:
                row = await _within(rows.get())
                await say(writer, row)
                if row is not None:
                    left = 0 if "void" in row else left - ("verdict" in row)
            await end(writer)
        finally:
            self._streams.discard(rows)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self, writer: asyncio.StreamWriter) -> None:
        begin(writer)
        proving = asyncio.ensure_future(self.prove())
        while not proving.done():
            await asyncio.wait([proving], timeout=ALIVE_SECONDS)
            if not proving.done():
                await say(writer, None)
        await say(writer, {**self._who(), "wrong": proving.result()})
        await end(writer)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)


async def _within(what: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(what, ALIVE_SECONDS)
    return None
