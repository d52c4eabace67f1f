"""Stands between the operator and the API server: numbers each write, loses or refuses what it is told.

The operator speaks plain HTTP to it on this machine; it speaks to the API server as the kubeconfig says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.cluster.processes import free_port

WRITES = ("POST", "PUT", "PATCH", "DELETE")
# What may happen to a write.
KILL_BEFORE, KILL_AFTER, CONFLICT, TOO_MANY, ERROR, LOST = FAULTS = (
    "kill-before", "kill-after", "409", "429", "500", "timeout-after-commit",
)  # fmt: skip
# What may happen to a line of a watch.
DROP, DELAY, CUT, GONE = WATCH_FAULTS = ("drop", "delay", "cut", "410")
_ANSWERS = {
    CONFLICT: (409, "Conflict", "the object has been modified; please apply your changes to the latest version"),
    TOO_MANY: (429, "TooManyRequests", "too many requests, please try again later"),
    ERROR: (500, "InternalError", "an error on the server has prevented the request from succeeding"),
}
_KEPT = ("Content-Type", "Accept", "User-Agent")


@dataclass
class ApiProxy:
    """`hit(number, write)` and `hit_watch(line)` name a fault or say "" for none. Leases pass untouched."""

    kubeconfig: Path
    hit: Callable[[int, str], str] = lambda number, write: ""
    hit_watch: Callable[[bytes], str] = lambda line: ""
    kill: Callable[[], None] = lambda: None
    writes: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[Path]:
        """Yields a kubeconfig file for the operator."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        self._server = config["clusters"][0]["cluster"]["server"]
        port = free_port()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        connector = aiohttp.TCPConnector(ssl=_client_context(config), limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            try:
                yield _kubeconfig(folder, port)
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = ""
        is_lease = "/leases" in request.path
        if request.method in WRITES and not is_lease:
            self.writes.append(f"{request.method} {request.path}")
            fault = self.hit(len(self.writes), self.writes[-1])
            if fault:
                self.happened.append(f"{len(self.writes)}: {fault} {self.writes[-1]}")
        body = await request.read()
        if fault == KILL_BEFORE:
            self.kill()
            raise ConnectionAbortedError
        if fault in _ANSWERS:
            return _refusal(fault)
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        url = self._server + request.raw_path
        limit = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, URL(url, encoded=True), data=body or None, headers=headers, timeout=limit
        ) as answer:
            if request.query.get("watch") in ("1", "true") and answer.status == 200 and not is_lease:
                return await self._watch(request, answer)
            content = await answer.read()
        if fault == KILL_AFTER:
            self.kill()
        if fault in (KILL_AFTER, LOST):
            _close(request)
            raise ConnectionAbortedError
        reply = web.Response(status=answer.status, body=content)
        for name in ("Content-Type", "Content-Encoding", "Retry-After"):
            if name in answer.headers:
                reply.headers[name] = answer.headers[name]
        return reply

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass the lines of a watch on, less what is lost. Lines stay in order: a delay holds the stream up."""
        reply = web.StreamResponse(headers={"Content-Type": "application/json"})
        await reply.prepare(request)
        while line := await _line(answer):
            fault = self.hit_watch(line)
            if fault:
                self.happened.append(fault)
            if fault == DROP:
                continue
            if fault == DELAY:
                await asyncio.sleep(2.0)
            if fault == GONE:
                told = {"type": "ERROR", "object": _status(410, "Expired", "too old resource version")}
                await reply.write(json.dumps(told).encode() + b"\n")
            if fault in (CUT, GONE):
                _close(request)
                break
            await reply.write(line)
        return reply


async def _line(answer: aiohttp.ClientResponse) -> bytes:
    """A line of any length; empty at the end."""
    found = b""
    async for chunk in answer.content:
        found += chunk
        if found.endswith(b"\n"):
            break
    return found


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    }


def _refusal(fault: str) -> web.Response:
    code, reason, message = _ANSWERS[fault]
    headers = {"Retry-After": "1"} if fault == TOO_MANY else {}
    return web.json_response(_status(code, reason, message), status=code, headers=headers)


def _client_context(config: Any) -> ssl.SSLContext:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        data = [user["client-certificate-data"], user["client-key-data"]]
        pair.write_bytes(b"\n".join(map(base64.b64decode, data)))
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        context.load_cert_chain(pair)
    return context


def _kubeconfig(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "proxied.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "operator", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "proxy",
    }
    path.write_text(json.dumps(content))
    return path
