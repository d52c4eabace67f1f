"""Plan, start what is ready, record what finished, plan again, until the report is there.

Truth is the store: a stage whose key is committed is done. Nothing here has to be remembered, so the executor may
be killed at any moment and started again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from soda_jobs.artifacts import Artifacts, Manifest
from soda_jobs.errors import ExitCode, SodaError, is_retryable
from soda_jobs.graph import Graph
from soda_jobs.local.processes import Process
from soda_jobs.local.services import Services
from soda_jobs.plan import Command, Finished, plan
from soda_jobs.spec import DistillationRun

ATTEMPTS: Final = 5
State = Literal["waiting", "running", "done", "reused", "failed"]


@dataclass
class StageRow:
    """What the screen and the status show of one stage."""

    name: str
    kind: str
    round: int
    state: State = "waiting"
    attempt: int = 0
    key: str = ""
    digest: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    headline: Mapping[str, float] = field(default_factory=dict)
    telemetry: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


class StageFailed(SodaError):
    """A stage ended in a way that trying again would not mend."""

    def __init__(self, stage: str, message: str, code: int) -> None:
        super().__init__(f"stage {stage}: {message}")
        self.stage, self.code = stage, code


OnChange = Callable[[StageRow], None]


class Executor:
    """Runs one graph on this machine."""

    def __init__(
        self, run: DistillationRun, graph: Graph, *, artifacts: Artifacts, env: Mapping[str, str], logs: Path
    ) -> None:
        self.run, self.graph, self.artifacts = run, graph, artifacts
        self.rows = {stage.name: StageRow(stage.name, stage.kind.value, stage.round) for stage in graph}
        self.finished: dict[str, Finished] = {}
        self._env, self._logs = env, logs
        self._services = Services(env, logs)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, Command] = {}

    async def execute(self, on_change: OnChange) -> None:
        """Run to the end. Raises StageFailed after every other running stage has ended and is committed."""
        failure: StageFailed | None = None
        try:
            while True:
                ready = [] if failure else self._ready(on_change)
                await self._services.keep_only(_services([*ready, *self._running.values()]))
                for command in self._fitting(ready):
                    self._running[command.stage] = command
                    self._tasks[command.stage] = asyncio.create_task(self._stage(command, on_change))
                if not self._tasks:
                    break
                ended, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                failure = self._collect(ended) or failure
        finally:
            await self._stop()
        if failure:
            raise failure

    def _ready(self, on_change: OnChange) -> list[Command]:
        """Commands to start; those whose key is committed are taken over on the way, and the plan made anew."""
        while True:
            ready = [item for item in plan(self.run, self.graph, self.finished) if item.stage not in self._tasks]
            found = {item.stage: self.artifacts.find(item.key) for item in ready}
            for stage, manifest in found.items():
                if manifest is not None:
                    self._finish(stage, manifest, "reused", on_change)
            if not any(found.values()):
                return ready

    def _fitting(self, ready: Iterable[Command]) -> list[Command]:
        cores = os.cpu_count() or 1
        free = cores - sum(item.cores or cores for item in self._running.values())
        fitting = []
        for command in ready:
            needed = command.cores or cores
            if needed <= free:
                fitting.append(command)
                free -= needed
        return fitting

    async def _stage(self, command: Command, on_change: OnChange) -> None:
        row = self.rows[command.stage]
        row.state, row.key = "running", command.key
        for attempt in range(1, ATTEMPTS + 1):
            row.attempt = attempt
            on_change(row)
            try:
                code = await self._attempt(command, row, on_change)
            except SodaError as error:  # its server did not come up
                row.reason, code = str(error), int(error.exit_code)
            manifest = self.artifacts.find(command.key) if code == ExitCode.DONE else None
            if manifest is not None:
                return self._finish(command.stage, manifest, "done", on_change)
            if not is_retryable(code) or attempt == ATTEMPTS:
                row.state = "failed"
                on_change(row)
                raise StageFailed(command.stage, row.reason or f"ended with exit code {code}", code)
            await asyncio.sleep(min(2.0**attempt, 30.0) / 2)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(self, command: Command, row: StageRow, on_change: OnChange) -> int:
        urls = {command.service.role: await self._services.url(command.service)} if command.service else {}

        def on_event(found: dict[str, Any]) -> None:
            if found["event"] == "progress":
                row.done, row.total, row.unit = found["done"], found["total"], found["unit"]
                on_change(row)
            elif found["event"] in ("stage_failed", "stage_crashed"):
                row.reason = found.get("message") or found["error"]

        process = await Process.start(
            command.argv,
            {**self._env, **command.env, "SODA_SERVICES": json.dumps(urls)},
            log=self._logs / f"{command.stage}.log",
            on_event=on_event,
        )
        try:
            return await process.wait()
        finally:
            await process.stop()

    def _finish(self, stage: str, manifest: Manifest, state: State, on_change: OnChange) -> None:
        row = self.rows[stage]
        row.state, row.key, row.digest, row.reason = state, manifest.key, manifest.digest, ""
        row.counts, row.headline = manifest.counts, manifest.headline
        row.seconds, row.telemetry = manifest.telemetry.get("seconds", 0.0), manifest.telemetry
        self.finished[stage] = Finished(manifest.key, manifest.digest)
        on_change(row)

    def _collect(self, ended: Iterable[asyncio.Task[None]]) -> StageFailed | None:
        failure = None
        for name in [name for name, task in self._tasks.items() if task in ended]:
            del self._running[name]
            error = self._tasks.pop(name).exception()
            if isinstance(error, StageFailed):
                failure = error
            elif error is not None:
                raise error
        return failure

    async def _stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._services.keep_only(())


def _services(commands: Iterable[Command]) -> set[str]:
    return {command.service.name for command in commands if command.service}
