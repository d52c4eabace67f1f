"""Sources on this machine, pinned by content: an edited file of questions is other work, not the same key."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from soda_jobs.graph import Graph, Kind, Stage
from soda_jobs.records import canonical


def pin_sources(graph: Graph) -> Graph:
    """The graph with the digest of every local file or folder that a source stage reads."""
    return replace(graph, stages=tuple(map(_pinned, graph.stages)))


def _pinned(stage: Stage) -> Stage:
    source = stage.settings.get("source")
    if stage.kind is not Kind.SOURCE or not source:
        return stage
    path = Path(source.removeprefix("file:"))
    if not path.exists():
        return stage  # a hub id, a bucket, something built in; or a mistake that the stage will name
    return replace(stage, settings={**stage.settings, "digest": _digest(path)})


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files' names, sizes and times: a checkpoint is too large to read."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = [(str(item.relative_to(path)), item.stat()) for item in sorted(path.rglob("*")) if item.is_file()]
    return hashlib.sha256(canonical([[name, s.st_size, s.st_mtime_ns] for name, s in found])).hexdigest()
