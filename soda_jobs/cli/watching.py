"""Following a run until it is over, wherever it runs: a live table on a terminal, one line per change elsewhere.

`fetch` gives the run as a resource (see `explain.py`) again and again; everything else here only shows it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from soda_jobs.cli.explain import FINISHED, TERMINAL, Resource, age, now
from soda_jobs.errors import Retry

EXIT: Final = {"Succeeded": 0, "Failed": 1, "Cancelled": 3, "Stopped": 3}
STYLE: Final = {
    "running": "bold cyan",
    "starting": "cyan",
    "done": "green",
    "reused": "green dim",
    "failed": "bold red",
}
HEADINGS: Final = ("STAGE", "STATE", "ROWS", "ATTEMPT", "TIME", "DIGEST", "RESULT")
Fetch = Callable[[], Resource]


def watch(fetch: Fetch, *, seconds: float, as_json: bool) -> int:
    """Show the run until it is over; the exit code says how it ended."""
    if not as_json and sys.stdout.isatty() and (live := _live()) is not None:
        with live:
            return _follow(fetch, lambda _, new: live.update(_table(new), refresh=True), seconds)

    def show(old: Resource, new: Resource) -> None:
        for change in changes(old, new):
            print(json.dumps(change, ensure_ascii=False) if as_json else line(change), flush=True)

    return _follow(fetch, show, seconds)


def _follow(fetch: Fetch, show: Callable[[Resource, Resource], None], seconds: float) -> int:
    old: Resource = {"status": {}}
    while True:
        try:
            new = fetch()
        except Retry as error:
            if not old.get("metadata"):
                raise
            print(f"soda: {error}", file=sys.stderr)
        else:
            show(old, new)
            old = new
            if state_of(new) in TERMINAL:
                return EXIT[state_of(new)]
        time.sleep(seconds)


def state_of(resource: Resource) -> str:
    return str((resource.get("status") or {}).get("state") or "Pending")


def changes(old: Resource, new: Resource) -> Iterator[dict[str, Any]]:
    """What to tell of a new status: stages and servers that changed their state or their reason, then the run."""
    for kind, fields in (
        ("stages", ("state", "attempt", "message")),
        ("services", ("ready", "attempt", "message")),
    ):
        before = {row["name"]: row for row in (old.get("status") or {}).get(kind, ())}
        for row in (new.get("status") or {}).get(kind, ()):
            known = before.get(row["name"], {"state": "waiting", "attempt": 0})
            if any(row.get(field) != known.get(field) for field in fields if row.get(field) or known.get(field)):
                yield {
                    kind.removesuffix("s"): row["name"],
                    **{f: row[f] for f in fields if row.get(f)},
                    **_ends(row),
                }
    status, was = new.get("status") or {}, old.get("status") or {}
    if any(status.get(field) != was.get(field) for field in ("state", "reason")) or not old.get("metadata"):
        told = {name: status[name] for name in ("progress", "message") if status.get(name)}
        yield {"run": new["metadata"]["name"], "state": state_of(new), **told}


def _ends(row: Resource) -> dict[str, Any]:
    if row.get("state") not in FINISHED:
        return {}
    return {"digest": row.get("digest", "")[:12], **(row.get("headline") or {})}


def line(change: Mapping[str, Any]) -> str:
    """One change on one line, with the time."""
    first, *rest = change.items()
    words = [first[1], *(str(value) if name == "state" else f"{name}={value}" for name, value in rest)]
    return " ".join([time.strftime("%H:%M:%S"), *map(str, words)])


def rows(resource: Resource) -> list[tuple[str, ...]]:
    """The stage table's cells, in the order of HEADINGS."""
    return [_cells(row) for row in (resource.get("status") or {}).get("stages", ())]


def _cells(row: Resource) -> tuple[str, ...]:
    amount = str(row["done"]) if row.get("done") is not None else ""
    amount += f"/{row['total']}" if amount and row.get("total") else ""
    result = row.get("message") or "  ".join(
        f"{key} {value:.3g}" for key, value in (row.get("headline") or {}).items()
    )
    took = ""
    if row.get("startTime"):
        end = row.get("finishTime")
        took = age(row["startTime"], now() if end is None else _time(end))
    attempt = str(row["attempt"]) if row.get("attempt") else ""
    return (row["name"], row.get("state", ""), amount, attempt, took, row.get("digest", "")[:12], result)


def _time(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def headline(resource: Resource) -> str:
    """The run on one line: name, state, round, progress, score and the sentence of its status."""
    status = resource.get("status") or {}
    score = f"score {status['score']}" if status.get("score") else ""
    at = f"round {status['round']}" if status.get("round") else ""
    progress = f"{status['progress']} stages" if status.get("progress") else ""
    words = [resource["metadata"]["name"], state_of(resource), at, progress, score]
    text = "  ".join(word for word in words if word)
    return f"{text}\n{status['message']}" if status.get("message") else text


def _live() -> Any:
    """A live display, where rich is installed."""
    try:
        from rich.live import Live
    except ImportError:
        return None
    return Live(auto_refresh=False, transient=False)


def _table(resource: Resource) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=headline(resource), title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading)
    cells = rows(resource)
    waiting = [row for row in cells if row[1] == "waiting"]
    shown = [row for row in cells if row[1] in FINISHED][-12:] + [
        row for row in cells if row[1] not in (*FINISHED, "waiting")
    ]
    for row in [*shown, *waiting[:5]]:
        table.add_row(*row, style=STYLE.get(row[1], "dim"))
    return table
