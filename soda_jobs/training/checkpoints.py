"""Checkpoints that are whole or do not exist: files first, flushed to disk, then a marker that lists them.

    work/checkpoint-200/model.safetensors  optimizer.pt  scheduler.pt  rng_state.pth  trainer_state.json  ...
    work/checkpoint-200/complete.json      {"plan": "5f0c…", "files": {"model.safetensors": 7351504, …}}

A folder without a marker, or whose files are not as long as the marker says, is what a death left behind. `plan`
is a digest of settings and rows: a checkpoint of other work is never resumed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

MARKER: Final = "complete.json"
_PREFIX: Final = "checkpoint-"


def newest(work: Path, plan: str) -> Path | None:
    """The whole checkpoint of `plan` with the most steps, or None."""
    whole = [folder for folder in _folders(work) if _is_whole(folder, plan)]
    return max(whole, key=step_of, default=None)


def commit(folder: Path, plan: str) -> None:
    """Flush every file of a written checkpoint, then make it count."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MARKER)
    for path in files:
        _flush(path)
    sizes = {path.name: path.stat().st_size for path in files}
    draft = folder / f"{MARKER}.tmp"
    draft.write_text(json.dumps({"plan": plan, "files": sizes}), encoding="utf-8")
    _flush(draft)
    draft.replace(folder / MARKER)
    _flush(folder)


def prune(work: Path, plan: str, keep: int) -> None:
    """Delete torn checkpoints, those of other plans, and all but the newest `keep`; the marker goes first."""
    whole = sorted((folder for folder in _folders(work) if _is_whole(folder, plan)), key=step_of)
    kept = set(whole[-keep:])
    for folder in _folders(work):
        if folder not in kept:
            (folder / MARKER).unlink(missing_ok=True)
            shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    """The optimizer steps taken when the checkpoint was written."""
    return int(folder.name.removeprefix(_PREFIX))


def _folders(work: Path) -> list[Path]:
    return [path for path in work.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]


def _is_whole(folder: Path, plan: str) -> bool:
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in marker["files"]}
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(marker["plan"] == plan and marker["files"] == sizes)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
