"""Sources on this machine, pinned by content: an edited file of questions is other work, not the same key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from soda_jobs.graph import Graph, Kind, Stage, with_pinned
from soda_jobs.records import canonical

DOCUMENT: Final = "pinned.json"  # among a run's documents: the pins, for whoever walks its graph elsewhere


def pin_sources(graph: Graph) -> Graph:
    """The graph with the digest of every local file or folder that a source stage reads."""
    return with_pinned(graph, pins(graph))


def pins(graph: Graph) -> dict[str, str]:
    """The digest of every local file or folder that a source stage reads, by the stage's name."""
    return {stage.name: _digest(path) for stage in graph if (path := _local(stage)) is not None}


def pinned_in(graph: Graph) -> dict[str, str]:
    """The digests that a pinned graph holds, by stage."""
    return {stage.name: stage.settings["digest"] for stage in graph if stage.settings.get("digest")}


def _local(stage: Stage) -> Path | None:
    source = stage.settings.get("source")
    if stage.kind is not Kind.SOURCE or not source:
        return None
    path = Path(source.removeprefix("file:"))
    return path if path.exists() else None  # a hub id, a bucket; or a mistake that the stage will name


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files' names, sizes and times: a checkpoint is too large to read."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = [(str(item.relative_to(path)), item.stat()) for item in sorted(path.rglob("*")) if item.is_file()]
    return hashlib.sha256(canonical([[name, s.st_size, s.st_mtime_ns] for name, s in found])).hexdigest()
