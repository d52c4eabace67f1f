"""What stages and commands call: programs in, their verdicts by id; and a sandbox of our own on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.log import event
from soda_jobs.parent import PARENT
from soda_jobs.sandbox.dispatch import IN_FLIGHT, Dispatcher, Sandboxes
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.verdict_cache import VerdictCache

_LINE: Final = 1 << 20
_STOP_SECONDS: Final = 10.0
_SHOWN: Final = ("sandbox_not_isolated", "canary_wrong", "sandbox_failed")

OnVerdict = Callable[[Verdict], None]


async def run_programs(
    sandboxes: Sandboxes,
    programs: Iterable[Program],
    *,
    token: str | None = None,
    in_flight: int = IN_FLIGHT,
    on_verdict: OnVerdict | None = None,
    cache: VerdictCache | None = None,
    runs: int = 1,
) -> dict[str, Verdict]:
    """Run programs at a URL (`http://host:port` or `unix:/path`), or at those of `Sandboxes`; the verdicts by id,
    in the order of the programs.

    A server that dies is waited for, and what it had not answered is sent again, to another if there is one. A
    fault of the sandbox is tried again twice and then kept as the verdict `sandbox_error`. `on_verdict` sees each
    verdict once, when it counts. With `runs`, programs whose runs disagree are `flaky`.

    Raises InvalidInput for an id given twice or a token that is refused, Retry when nothing was heard from the
    servers for two minutes.
    """
    waiting = list(programs)
    twice = [name for name, count in Counter(program.id for program in waiting).items() if count > 1]
    if twice:
        raise InvalidInput(f"{twice[0]!r} is the id of more than one program", field="id")

    async def one(program: Program) -> Verdict:
        verdict = await dispatcher.run(program, runs=runs)
        if on_verdict is not None:
            on_verdict(verdict)
        return verdict

    async with Dispatcher(sandboxes, token=token, in_flight=in_flight, cache=cache) as dispatcher:
        tasks = [asyncio.create_task(one(program)) for program in waiting]
        try:
            verdicts = await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)
    return {program.id: verdict for program, verdict in zip(waiting, verdicts, strict=True)}


async def _cancel(tasks: list[asyncio.Task[Verdict]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


async def _forward(stderr: asyncio.StreamReader) -> None:
    """Events of the server that a person should see; the rest is routine."""
    while line := await stderr.readline():
        found = _event(line)
        if found.get("event") in _SHOWN:
            name = found.pop("event")
            event(name, **{key: value for key, value in found.items() if key != "ts"})
        elif not found:
            sys.stderr.write(line.decode(errors="replace"))


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
