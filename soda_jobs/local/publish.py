"""The report of a run: its deterministic summary, plus the clocks and costs that only this run knows."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from soda_jobs import __version__
from soda_jobs.errors import InvalidInput
from soda_jobs.graph import Stage, split_input
from soda_jobs.local.executor import StageRow
from soda_jobs.local.session import Session

PACKAGES = ("torch", "transformers", "trl", "datasets", "tokenizers", "pydantic")


def publish(session: Session, rows: Sequence[StageRow | Mapping[str, Any]]) -> Path:
    """Write report.html and report.json to the store and to the state folder; returns the page's path."""
    from soda_jobs.report import RunFacts, StageFact, render

    facts = [asdict(row) if isinstance(row, StageRow) else dict(row) for row in rows]
    report = next((row for row in facts if row["kind"] == "report"), None)
    manifest = session.artifacts.find(report["key"]) if report and report["digest"] else None
    if manifest is None:
        raise InvalidInput(f"the run {session.name} has not reached its report yet; `soda run` goes on with it")
    summary = json.loads((session.artifacts.fetch(manifest) / "summary.json").read_text(encoding="utf-8"))
    stages = [
        StageFact(
            name=row["name"],
            kind=row["kind"],
            round=row["round"],
            key=row["key"],
            digest=row["digest"],
            state=row["state"],
            seconds=row["seconds"],
            rows=row["counts"].get("rows", 0),
            counts=row["counts"],
            headline=row["headline"],
            telemetry=row["telemetry"],
            inputs=_inputs(session.graph.stage(row["name"])),
            role=_role(session.graph.stage(row["name"])),
        )
        for row in facts
    ]
    run = RunFacts(
        run=session.name,
        method=session.run.spec.method,
        spec_yaml=session.yaml,
        stages=stages,
        versions=versions(),
    )
    page, document = render(summary, run=run)
    folder = session.state / "runs" / session.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("report.html", page), ("report.json", json.dumps(document, ensure_ascii=False, indent=1))):
        session.artifacts.put_document(session.name, name, text.encode())
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "report.html"


def _inputs(stage: Stage) -> dict[str, list[str]]:
    inputs = {name: [split_input(ref)[0] for ref in refs] for name, refs in stage.inputs.items()}
    if stage.service and stage.service.checkpoint:
        inputs["model"] = [stage.service.checkpoint]
    return inputs


def _role(stage: Stage) -> str:
    return stage.service.role if stage.service else ""


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"soda": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
