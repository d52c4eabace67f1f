"""Commands that only look, on this machine: validate, plan, status, watch, explain, logs, report."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soda_jobs.errors import ExitCode, InvalidInput

if TYPE_CHECKING:
    from soda_jobs.local.session import Session


def validate(arguments: Namespace) -> int:
    from soda_jobs.load import load, problems
    from soda_jobs.local.session import read_text
    from soda_jobs.methods import draw

    text = read_text(Path(arguments.file))
    found = problems(text)
    if arguments.output == "json":
        print(json.dumps([{"field": item.field, "message": item.message} for item in found], ensure_ascii=False))
    else:
        for item in found:
            print(item)
        if not found:
            stages = len(draw(load(text)).stages)
            print(f"{arguments.file} is valid: {stages} stages")
    return int(ExitCode.INVALID_INPUT) if found else 0


def plan(arguments: Namespace) -> int:
    from soda_jobs.estimate import estimate
    from soda_jobs.local.session import open_file
    from soda_jobs.plan import Finished
    from soda_jobs.plan import plan as plan_now

    session = open_file(Path(arguments.file), arguments.store)
    finished: dict[str, Finished] = {}
    while True:
        found = {
            item.stage: session.artifacts.find(item.key) for item in plan_now(session.run, session.graph, finished)
        }
        known = {name: Finished(item.key, item.digest) for name, item in found.items() if item is not None}
        if not known:
            break
        finished |= known
    costs = estimate(session.graph)
    rows: list[dict[str, Any]] = [
        {
            "stage": stage.name,
            "kind": stage.kind.value,
            "state": "reused" if stage.name in finished else "run",
            "service": stage.service.name if stage.service else "",
            "needs": list(stage.needs),
            **costs[stage.name],
        }
        for stage in session.graph
    ]
    if arguments.output == "json":
        print(json.dumps({"run": session.name, "method": session.graph.method, "stages": rows}))
        return 0
    table(("STAGE", "KIND", "STATE", "SERVICE", "CALLS", "STEPS", "NEEDS"), map(_plan_row, rows))
    todo = [row for row in rows if row["state"] == "run"]
    calls, steps = sum(row["calls"] for row in todo), sum(row["steps"] for row in todo)
    print(f"\n{len(todo)} stages to run, {len(rows) - len(todo)} reused; at most {calls:,} calls, {steps:,} steps")
    return 0


def _plan_row(row: dict[str, Any]) -> tuple[str, ...]:
    needs = ", ".join(row["needs"])
    calls, steps = (f"{row[name]:,}" if row[name] else "" for name in ("calls", "steps"))
    short = needs if len(needs) < 60 else f"{needs[:57]}..."
    return (row["stage"], row["kind"], row["state"], row["service"], calls, steps, short)


def status(arguments: Namespace) -> int:
    from soda_jobs.local.session import open_target, read_status

    document = read_status(open_target(arguments.run, arguments.store))
    if arguments.output == "json":
        print(json.dumps(document, ensure_ascii=False))
        return 0
    print(f"{document['run']}  {document['method']}  {document['state']}  {document['updated']}")
    if document["message"]:
        print(document["message"])
    table(("STAGE", "STATE", "ROWS", "SECONDS", "DIGEST", "RESULT"), map(_status_row, document["stages"]))
    return 0


def _status_row(row: dict[str, Any]) -> tuple[str, ...]:
    amount = (
        f"{row['done']}/{row['total']}"
        if row["state"] == "running" and row["total"]
        else row["counts"].get("rows", "")
    )
    result = row["reason"] or "  ".join(f"{name} {value:.3g}" for name, value in row["headline"].items())
    return (row["name"], row["state"], str(amount), f"{row['seconds']:.1f}", row["digest"][:12], result)


def watch(arguments: Namespace) -> int:
    from soda_jobs.cli.watching import watch as follow
    from soda_jobs.local.session import open_target

    session = open_target(arguments.run, arguments.store)
    return follow(lambda: _resource(session), seconds=arguments.interval, as_json=arguments.output == "json")


def explain(arguments: Namespace) -> int:
    from soda_jobs.cli.explain import explain as paragraph
    from soda_jobs.cli.explain import now
    from soda_jobs.local.session import open_target

    resource = _resource(open_target(arguments.run, arguments.store))
    text = paragraph(resource, now())
    print(json.dumps({**resource, "text": text}, ensure_ascii=False) if arguments.output == "json" else text)
    return 0


def _resource(session: Session) -> dict[str, Any]:
    from soda_jobs.cli.explain import local_resource
    from soda_jobs.local.session import is_locked, read_status

    return local_resource(read_status(session), alive=is_locked(session))


def cluster_only(arguments: Namespace) -> int:
    raise InvalidInput(
        f"`{arguments.verb}` is for a run in a cluster: add -n NAMESPACE or --cluster; a run on this machine is "
        "stopped with Ctrl-C and goes on with the same `soda run`"
    )


def report(arguments: Namespace) -> int:
    from soda_jobs.local.publish import publish
    from soda_jobs.local.session import open_target, read_status

    session = open_target(arguments.run, arguments.store)
    path = publish(session, read_status(session)["stages"])
    print((path.parent / "report.json").read_text(encoding="utf-8") if arguments.output == "json" else path)
    return 0


def logs(arguments: Namespace) -> int:
    from soda_jobs.load import load
    from soda_jobs.local.session import read_text
    from soda_jobs.settings import state_folder

    name = arguments.run
    if Path(name).is_file():
        name = load(read_text(Path(name))).metadata.name
    folder = state_folder() / "logs" / name
    files = sorted(folder.glob(f"{arguments.stage or '*'}.log"), key=lambda path: path.stat().st_mtime)
    if not files:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none"
        raise InvalidInput(f"no log of {arguments.stage or name} in {folder}; logs there: {known}")
    offsets = {path: _copy(path, 0, prefix=len(files) > 1) for path in files}
    while arguments.follow:
        time.sleep(0.5)
        offsets = {path: _copy(path, offset, prefix=len(files) > 1) for path, offset in offsets.items()}
    return 0


def _copy(path: Path, offset: int, *, prefix: bool) -> int:
    """Print what was written to `path` since `offset`; returns the new offset, always at a line's end."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    data = data[: data.rfind(b"\n") + 1]
    for line in data.decode(errors="replace").splitlines():
        print(f"{path.stem}: {line}" if prefix else line)
    sys.stdout.flush()
    return offset + len(data)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [tuple(headings), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
