"""Programs to a sandbox server and verdicts back: exactly one for each id, whatever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.log import event
from soda_jobs.parent import PARENT
from soda_jobs.sandbox.types import RETURNED_BYTES, Program, Verdict, to_dict, verdict_from_dict

BATCH: Final = 8
FAULT_RETRIES: Final = 3
PATIENCE_SECONDS: Final = 120.0
_SILENCE_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LINE: Final = 2 * RETURNED_BYTES

OnVerdict = Callable[[Verdict], None]


async def run_programs(
    url: str,
    programs: Iterable[Program],
    *,
    token: str | None = None,
    in_flight: int = 64,
    on_verdict: OnVerdict | None = None,
) -> dict[str, Verdict]:
    """Run programs at `url` (`http://host:port` or `unix:/path`); the verdicts by id, in the order of the
    programs.

    A server that dies is waited for, and what it had not answered is sent again. A fault of the sandbox is tried
    again three times and then kept as the verdict `sandbox_error`. `on_verdict` sees each verdict once, as it
    comes.

    Raises InvalidInput for an id given twice or a token that is refused, Retry when nothing was heard from the
    server for two minutes.
    """
    waiting = list(programs)
    twice = [name for name, count in Counter(program.id for program in waiting).items() if count > 1]
    if twice:
        raise InvalidInput(f"{twice[0]!r} is the id of more than one program", field="id")
    batch = _Batch(url, token, waiting, on_verdict)
    connections = max(1, min(-(-in_flight // BATCH), -(-len(waiting) // BATCH)))
    async with contextlib.AsyncExitStack() as stack:
        tasks = [asyncio.create_task(batch.work()) for _ in range(connections)]
        stack.push_async_callback(_cancel, tasks)
        await asyncio.gather(*tasks)
    return {program.id: batch.verdicts[program.id] for program in waiting}


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Batch:
    def __init__(self, url: str, token: str | None, programs: list[Program], on_verdict: OnVerdict | None) -> None:
        self._url, self._token, self._on_verdict = url, token, on_verdict
        self._queue = deque(programs)
        self._faults: Counter[str] = Counter()
        self._heard = time.monotonic()
        self.verdicts: dict[str, Verdict] = {}

    async def work(self) -> None:
        """Send batches until the queue is empty; a batch that was cut off goes on with what is left of it."""
        failures = 0
        while self._queue:
            sent: dict[str, Program] = {}
            while self._queue and len(sent) < BATCH:
                program = self._queue.popleft()
                sent[program.id] = program
            try:
                await self._send(sent)
                failures = 0
            except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ValueError) as error:
                self._queue.extendleft(program for name, program in sent.items() if name not in self.verdicts)
                if time.monotonic() - self._heard > PATIENCE_SECONDS:
                    raise Retry(f"the sandbox at {self._url} does not answer ({error})") from error
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1

    async def _send(self, sent: dict[str, Program]) -> None:
        body = b"".join(json.dumps(to_dict(program)).encode() + b"\n" for program in sent.values())
        reader, writer = await asyncio.wait_for(_connect(self._url), _CONNECT_SECONDS)
        try:
            writer.write(_head(self._url, self._token, len(body)) + body)
            await writer.drain()
            code = await self._status(reader)
            if code != 200:
                await _refuse(reader, code)
            left = set(sent)
            while left:
                line = await self._next_line(reader)
                if line.strip():
                    verdict = verdict_from_dict(json.loads(line))
                    left.remove(verdict.id)
                    self._take(sent[verdict.id], verdict)
        finally:
            writer.close()

    def _take(self, program: Program, verdict: Verdict) -> None:
        if verdict.verdict == "sandbox_error" and self._faults[program.id] < FAULT_RETRIES:
            self._faults[program.id] += 1
            event("sandbox_fault", id=program.id, attempt=self._faults[program.id], reason=verdict.detail)
            self._queue.append(program)
            return
        self.verdicts[program.id] = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict)

    async def _status(self, reader: asyncio.StreamReader) -> int:
        words = (await self._read(reader.readline())).split()
        code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        while (await self._read(reader.readline())).strip():
            pass
        return code

    async def _next_line(self, reader: asyncio.StreamReader) -> bytes:
        """The server sends each line as one chunk."""
        size = int(await self._read(reader.readline()), 16)
        if size == 0:
            raise EOFError("it ended the reply before every verdict")
        return (await self._read(reader.readexactly(size + 2)))[:-2]

    async def _read(self, what: Any) -> bytes:
        data: bytes = await asyncio.wait_for(what, _SILENCE_SECONDS)
        if not data:
            raise EOFError("it closed the connection")
        self._heard = time.monotonic()
        return data


async def _refuse(reader: asyncio.StreamReader, code: int) -> None:
    body = await asyncio.wait_for(reader.read(), _SILENCE_SECONDS)
    if 400 <= code < 500:
        try:
            sentence = str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError):
            sentence = f"it is not a sandbox: it answered {code}"
        raise InvalidInput(sentence, field="sandbox")
    raise ConnectionError(f"it answered {code}")


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path, limit=_LINE)
    if parts.scheme != "http" or parts.hostname is None:
        raise InvalidInput(f"{url!r} is not a sandbox; give http://host:port or unix:/path", field="sandbox")
    return await asyncio.open_connection(parts.hostname, parts.port or 80, limit=_LINE)


def _head(url: str, token: str | None, length: int) -> bytes:
    host = urlsplit(url).netloc or "sandbox"
    lines = ["POST /v1/run HTTP/1.1", f"Host: {host}", f"Content-Length: {length}", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class LocalSandbox:
    """`async with LocalSandbox() as url:` a sandbox server of our own on this machine; it cannot outlive us."""

    def __init__(self, *, workers: int | None = None) -> None:
        self._words = ["--workers", str(workers)] if workers is not None else []

    async def __aenter__(self) -> str:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "soda_jobs.sandbox", *self._words),
            env={**os.environ, "SODA_LOG": "json", PARENT: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_LINE,
        )
        lines: deque[str] = deque(maxlen=5)
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            found = _event(line)
            if found.get("event") == "sandbox_ready":
                self._reader = asyncio.create_task(_forward(self._process.stderr))
                return str(found["url"])
            lines.append(line.decode(errors="replace").strip())
        await self._process.wait()
        raise Retry(f"the sandbox did not start: {' '.join(lines)}")

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _CONNECT_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


async def _forward(stderr: asyncio.StreamReader) -> None:
    """Events of the server that a person should see; the rest is routine."""
    while line := await stderr.readline():
        found = _event(line)
        if found.get("event") == "sandbox_not_isolated":
            event("sandbox_not_isolated", missing=found["missing"])
        elif not found:
            sys.stderr.write(line.decode(errors="replace"))


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
