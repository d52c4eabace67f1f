"""The sandbox as a server: programs in, verdicts out as they finish. HTTP/1.1 on loopback or a Unix socket.

    GET  /healthz   {"ready": true, "languages": {"python": "3.11.7", "go": null, …}, "isolation": {…}}
    POST /v1/run    one program a line in; one verdict a line out, in the order they finish; empty lines mean
    "alive"

With SODA_SANDBOX_TOKEN set, /v1/run wants it as a bearer token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import os
import signal
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput, Retry, SandboxNotIsolated
from soda_jobs.log import event
from soda_jobs.sandbox.pool import TOKEN, Pool, WorkerDied
from soda_jobs.sandbox.types import Program, program_from_dict, to_dict

ALIVE_SECONDS: Final = 2.0
MAX_BODY: Final = 256 << 20
_MAX_HEAD: Final = 1 << 16
_HEAD_SECONDS: Final = 60.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    413: "Content Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]


async def serve(
    *, port: int, host: str, socket_path: str | None, workers: int, require_isolation: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidInput when the address cannot be used, and with
    `require_isolation` SandboxNotIsolated where a wall is missing, before any program is taken."""
    token = os.environ.get(TOKEN, "")
    if socket_path is None and not token and not _is_loopback(host):
        raise InvalidInput(f"{host} can be reached from outside, so {TOKEN} must be set", field="--host")
    pool = Pool(workers)
    server = _Server(pool, token)
    try:
        if socket_path is not None:
            listener = await asyncio.start_unix_server(server.handle, socket_path, limit=_MAX_HEAD)
            os.chmod(socket_path, 0o600)
            address: dict[str, Any] = {"url": f"unix:{socket_path}"}
        else:
            listener = await asyncio.start_server(server.handle, host, port, limit=_MAX_HEAD)
            chosen = listener.sockets[0].getsockname()[1]
            address = {"url": f"http://{host}:{chosen}", "port": chosen}
    except OSError as error:
        where = socket_path or f"{host}:{port}"
        raise InvalidInput(f"cannot listen on {where}: {error.strerror or error}", field="--port") from error
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        await _probe(pool)
        if require_isolation and pool.walls["missing"]:
            raise SandboxNotIsolated(f"the sandbox lacks a wall: {pool.walls['missing']}")
        server.is_ready = True
        event("sandbox_ready", **address, workers=workers, languages=pool.versions)
        if pool.walls["missing"]:
            event("sandbox_not_isolated", missing=pool.walls["missing"])
        await stopped.wait()
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


class _Server:
    def __init__(self, pool: Pool, token: str) -> None:
        self._pool, self._token = pool, token
        self._open: set[asyncio.Task[Any]] = set()
        self.is_ready = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except _Refused as refused:
            with contextlib.suppress(ConnectionError):
                await _reply(writer, refused.code, {"error": refused.sentence})
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client went away or does not speak HTTP
        except asyncio.CancelledError:
            pass  # we are stopping
        finally:
            self._open.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await asyncio.wait_for(_read_head(reader), _HEAD_SECONDS)
        route = (request.method, request.path)
        if route == ("GET", "/healthz"):
            await _reply(writer, 200 if self.is_ready else 503, self._health())
        elif route == ("POST", "/v1/run"):
            self._check_token(request)
            programs = _programs(await _read_body(reader, request))
            await self._run(programs, writer)
        else:
            raise _Refused(404, f"{request.method} {request.path} is not one of GET /healthz, POST /v1/run")

    def _health(self) -> dict[str, Any]:
        walls = self._pool.walls
        isolation = {
            "namespaces": walls.get("namespaces", False),
            "own_user": walls.get("program_id") is not None,
            "missing": walls.get("missing", ""),
        }
        return {"ready": self.is_ready, "languages": self._pool.versions, "isolation": isolation}

    def _check_token(self, request: _Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise _Refused(401, f"the token is not this sandbox's; set {TOKEN} to the same value on both sides")

    async def _run(self, programs: list[Program], writer: asyncio.StreamWriter) -> None:
        finished: asyncio.Queue[bytes] = asyncio.Queue()

        async def run(program: Program) -> None:
            verdict = await self._pool.run(program)
            finished.put_nowait(json.dumps(to_dict(verdict)).encode() + b"\n")

        head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        tasks = [asyncio.create_task(run(program)) for program in programs]
        try:
            left = len(tasks)
            while left:
                line = b"\n"
                with contextlib.suppress(TimeoutError):
                    line = await asyncio.wait_for(finished.get(), ALIVE_SECONDS)
                    left -= 1
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _read_head(reader: asyncio.StreamReader) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise _Refused(400, f"{first[:80]!r} is not an HTTP request line")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return _Request(words[0], words[1].partition("?")[0], headers)


async def _read_body(reader: asyncio.StreamReader, request: _Request) -> bytes:
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise _Refused(411, f"Content-Length is {length!r}, and it must be the number of bytes of the body")
    if int(length) > MAX_BODY:
        raise _Refused(
            413, f"the body has {length} bytes; at most {MAX_BODY} are accepted, so send fewer programs"
        )
    return await reader.readexactly(int(length))


def _programs(body: bytes) -> list[Program]:
    programs: dict[str, Program] = {}
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            program = program_from_dict(json.loads(line), field=f"line {number}")
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"line {number}: not JSON ({str(error)[:80]})") from error
        except InvalidInput as error:
            raise _Refused(400, str(error)) from error
        if program.id in programs:
            raise _Refused(400, f"line {number}.id: {program.id!r} stands there twice")
        programs[program.id] = program
    return list(programs.values())


async def _reply(writer: asyncio.StreamWriter, code: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)
    await writer.drain()
