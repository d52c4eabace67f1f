"""Live progress: a table on a terminal, one event per line everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from soda_jobs.local.executor import StageRow
from soda_jobs.log import event

MARK = {"waiting": "·", "running": "▸", "done": "✓", "reused": "=", "failed": "✗"}
STYLE = {"waiting": "dim", "running": "bold cyan", "done": "green", "reused": "green dim", "failed": "bold red"}


class Display:
    """Shows the stages of one run as they change."""

    def __init__(self, run: str, rounds: int, rows: Sequence[StageRow]) -> None:
        self._run, self._rounds, self._rows = run, rounds, rows
        self._states: dict[str, str] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._begun = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render, console=Console(stderr=True), refresh_per_second=4, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, row: StageRow) -> None:
        changed = self._states.get(row.name) != row.state
        self._states[row.name] = row.state
        if changed and row.state == "running":
            self._started[row.name] = (time.monotonic(), row.done)
        if changed and self._live is None:
            event("stage", run=self._run, stage=row.name, state=row.state, **_facts(row))
        elif self._live is None and row.total and row.done == row.total:
            event("progress", run=self._run, stage=row.name, unit=row.unit, done=row.done, total=row.total)

    def _render(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, expand=False)
        for heading in ("", "STAGE", "ROWS", "RATE", "ETA", "TIME", "RESULT"):
            table.add_column(heading, justify="right" if heading in ("ROWS", "RATE", "ETA", "TIME") else "left")
        for row in self._shown():
            table.add_row(*self._cells(row), style=STYLE[row.state])
        done = sum(row.state in ("done", "reused") for row in self._rows)
        seconds = time.monotonic() - self._begun
        table.title = f"{self._run}  {done}/{len(self._rows)} stages  {_clock(seconds)}  {self._scores()}"
        table.title_justify = "left"
        return table

    def _shown(self) -> list[StageRow]:
        """What fits: the last finished stages, all that run or failed, the next that wait."""
        active = [row for row in self._rows if row.state in ("running", "failed")]
        finished = [row for row in self._rows if row.state in ("done", "reused")][-12:]
        waiting = [row for row in self._rows if row.state == "waiting"][:5]
        return [*finished, *active, *waiting]

    def _cells(self, row: StageRow) -> tuple[str, ...]:
        started, first = self._started.get(row.name, (time.monotonic(), 0))
        elapsed = time.monotonic() - started
        running = row.state == "running"
        rate = (row.done - first) / elapsed if running and elapsed > 1 else 0.0
        left = (row.total - row.done) / rate if rate and row.total else None
        amount = f"{row.done}/{row.total}" if running and row.total else str(row.counts.get("rows", ""))
        return (
            MARK[row.state],
            row.name,
            amount,
            f"{rate:.1f}/s" if rate else "",
            _clock(left) if left is not None else "",
            _clock(elapsed if running else row.seconds) if row.state != "waiting" else "",
            row.reason or _result(row),
        )

    def _scores(self) -> str:
        found = {row.round: row.headline["pass@1"] for row in self._rows if "pass@1" in row.headline}
        return "pass@1 " + " → ".join(f"{found[t]:.2f}" for t in sorted(found)) if found else ""


def _result(row: StageRow) -> str:
    parts = [f"{name} {value:.3g}" for name, value in row.headline.items()]
    return "reused" if row.state == "reused" and not parts else "  ".join(parts[:3])


def _facts(row: StageRow) -> dict[str, Any]:
    if row.state in ("done", "reused"):
        return {"seconds": row.seconds, "digest": row.digest, **row.headline, **row.counts}
    return {"attempt": row.attempt, **({"reason": row.reason} if row.reason else {})}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{seconds:.1f}s"
