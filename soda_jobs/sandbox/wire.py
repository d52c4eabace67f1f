"""One request to one sandbox server, from the trusted side: its health, a batch of programs, a check of itself.

    GET  /healthz    -> Health
    POST /v1/run     -> rows: {"server": …, "epoch": …}, then {"started": id} and a verdict for each program
    POST /v1/check   -> {"server": …, "epoch": …, "wrong": ""}

Everything that comes back is untrusted bytes. Raises one of FAILURES for a server that is away or speaks nonsense,
InvalidInput for a request that it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox.types import RETURNED_BYTES, Program, Verdict, to_dict, verdict_from_dict

LINE: Final = 2 * RETURNED_BYTES
FAILURES: Final = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ValueError)
_SILENCE_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_HEALTH_SECONDS: Final = 5.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server listens. `host` is for the request's head; `path` is a Unix socket."""

    host: str
    ip: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Health:
    """Who a server is. `identity` names for each language the code, toolchain and walls that make its verdicts."""

    server: str
    epoch: int
    workers: int
    is_ready: bool
    is_isolated: bool
    identity: dict[str, str] = field(default_factory=dict)


async def resolve(url: str) -> list[Address]:
    """Every address behind a URL: a headless Service's name has one for each pod. Raises OSError, InvalidInput."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return [Address("sandbox", path=parts.path)]
    if parts.scheme != "http" or parts.hostname is None:
        raise InvalidInput(f"{url!r} is not a sandbox; give http://host:port or unix:/path", field="sandbox")
    port = parts.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=1)
    return [Address(parts.netloc, ip, port) for ip in dict.fromkeys(str(item[4][0]) for item in found)]


async def health(address: Address) -> Health:
    async with _connection(address, lambda: None) as line:
        await asyncio.wait_for(line.send("GET", "/healthz", "", b""), _HEALTH_SECONDS)
        _, body = await asyncio.wait_for(line.whole(), _HEALTH_SECONDS)
    row = _object(body)
    try:
        return Health(
            server=str(row["server"]),
            epoch=int(row["epoch"]),
            workers=max(1, int(row["workers"])),
            is_ready=row["ready"] is True,
            is_isolated=row["isolation"]["namespaces"] is True,
            identity={str(key): str(value) for key, value in row["identity"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is not a sandbox of this version") from error


async def run(
    address: Address, token: str, programs: Sequence[Program], heard: Callable[[], None]
) -> AsyncGenerator[dict[str, Any], None]:
    """Send programs; the rows of the answer as they come. `heard` is called for every sign of life."""
    body = b"".join(json.dumps(to_dict(program)).encode() + b"\n" for program in programs)
    async with _connection(address, heard) as line:
        await line.send("POST", "/v1/run", token, body)
        await line.accepted()
        while row := await line.row():
            yield row


async def check(address: Address, token: str, heard: Callable[[], None]) -> dict[str, Any]:
    """Ask the server to prove by its canaries that what it has answered so far is right."""
    async with _connection(address, heard) as line:
        await line.send("POST", "/v1/check", token, b"")
        await line.accepted()
        row = await line.row()
    if row is None or "wrong" not in row:
        raise EOFError("it ended before it had checked itself")
    return row


@contextlib.asynccontextmanager
async def _connection(address: Address, heard: Callable[[], None]) -> AsyncIterator[_Line]:
    if address.path:
        opening = asyncio.open_unix_connection(address.path, limit=LINE)
    else:
        opening = asyncio.open_connection(address.ip, address.port, limit=LINE)
    reader, writer = await asyncio.wait_for(opening, _CONNECT_SECONDS)
    try:
        yield _Line(address, reader, writer, heard)
    finally:
        writer.close()


class _Line:
    """One connection, good for one request."""

    def __init__(
        self,
        address: Address,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Callable[[], None],
    ) -> None:
        self._address, self._reader, self._writer, self._heard = address, reader, writer, heard

    async def send(self, method: str, path: str, token: str, body: bytes) -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address.host}", "Connection: close"]
        lines.append(f"Content-Length: {len(body)}")
        if token:
            lines.append(f"Authorization: Bearer {token}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        with contextlib.suppress(ConnectionError):  # it may refuse before it has read all: its answer says why
            await self._writer.drain()

    async def accepted(self) -> None:
        """Read the head of a streamed answer. Raises InvalidInput with the server's own sentence for a 4xx."""
        code = await self._head()
        if code == 200:
            return
        body = await self._read(self._reader.read())
        if 400 <= code < 500:
            try:
                sentence = str(_object(body)["error"])
            except (ValueError, KeyError):
                sentence = f"it is not a sandbox: it answered {code}"
            raise InvalidInput(sentence, field="sandbox")
        raise ConnectionError(f"it answered {code}")

    async def whole(self) -> tuple[int, bytes]:
        return await self._head(), await self._reader.read()

    async def row(self) -> dict[str, Any] | None:
        """The next row of a streamed answer, None at its end; the server sends each line as one chunk."""
        while True:
            size = int(await self._read(self._reader.readline()), 16)
            if size == 0:
                return None
            if not 0 < size <= LINE:
                raise ValueError(f"it sent a row of {size} bytes")
            data = (await self._read(self._reader.readexactly(size + 2)))[:-2]
            if data.strip():
                return _object(data)

    async def _head(self) -> int:
        words = (await self._read(self._reader.readline())).split()
        while (await self._read(self._reader.readline())).strip():
            pass
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    async def _read(self, what: Awaitable[bytes]) -> bytes:
        data = await asyncio.wait_for(what, _SILENCE_SECONDS)
        if not data:
            raise EOFError("it closed the connection")
        self._heard()
        return data


def verdict_of(row: dict[str, Any]) -> Verdict:
    """Raises ValueError for anything that is not a verdict."""
    try:
        verdict = verdict_from_dict(row)
    except InvalidInput as error:
        raise ValueError(str(error)) from error
    words = (verdict.id, verdict.language, verdict.phase, verdict.detail, verdict.returned)
    if not all(isinstance(word, str) for word in words) or not isinstance(verdict.seconds, float | int):
        raise ValueError("it sent a verdict of other types")
    return verdict


def epoch_of(row: dict[str, Any]) -> tuple[str, int]:
    """Which server speaks, and how often its canaries were wrong before. Raises ValueError."""
    server, epoch = row.get("server"), row.get("epoch")
    if not isinstance(server, str) or not isinstance(epoch, int):
        raise ValueError("it did not say who it is")
    return server, epoch


def _object(data: bytes) -> dict[str, Any]:
    try:
        row = json.loads(data)
    except RecursionError as error:
        raise ValueError("it sent something that nests too deep") from error
    if not isinstance(row, dict):
        raise ValueError(f"it sent {data[:40]!r}, which is not an object")
    return row
