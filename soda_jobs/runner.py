"""One stage in one process: fetch its inputs, run it, commit its artifact, answer with an exit code.

    SODA_STAGE     JSON of the stage: run, stage, kind, round, key, settings, inputs, options (made by plan.py)
    SODA_SERVICES  JSON {role: URL} of the servers it may talk to
    SODA_RESULT    a file for the result (a pod's termination message), under 4 KiB
    SODA_PODS      how many processes share the stage (1), and JOB_COMPLETION_INDEX which of them this is (0)

The same code runs in a pod and under `soda run`; it never learns which.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from soda_jobs.artifacts import Artifacts, Manifest
from soda_jobs.context import ROWS, Context, Input, Share, ShareDone, Summary
from soda_jobs.errors import Retry
from soda_jobs.job import run_job
from soda_jobs.log import event, progress
from soda_jobs.settings import open_artifacts, state_folder, store_from_env


class TaskInput(BaseModel):
    key: str
    file: str | None


class Task(BaseModel):
    """A stage as plan.py wrote it."""

    run: str
    stage: str
    kind: str
    round: int
    key: str
    settings: dict[str, Any]
    inputs: dict[str, list[TaskInput]]
    digests: dict[str, list[str]]
    code_version: int
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class Folders:
    """`out` is this attempt's alone; `work` outlives attempts of the same key and goes when it is committed."""

    out: Path
    work: Path


def main() -> int:
    """Run the stage that the environment names; returns the exit code."""
    task = Task.model_validate_json(os.environ["SODA_STAGE"])
    return run_job(lambda: run(task), what="stage", stage=task.stage)


def run(task: Task) -> dict[str, Any]:
    """Do the stage's work unless it is committed already; returns what the status shows of it."""
    artifacts = open_artifacts(store_from_env(), state_folder())
    found = artifacts.find(task.key)
    if found is not None:
        event("stage_reused", stage=task.stage, key=task.key, digest=found.digest)
        return describe(found, "reused")
    started = time.monotonic()
    event("stage_started", stage=task.stage, kind=task.kind, round=task.round, key=task.key)
    folders = _folders(task.key)
    try:
        summary = _call(task, artifacts, folders)
    except ShareDone:
        if artifacts.find(task.key) is not None:  # all was joined while we did again what was there already
            artifacts.shards(task.key).clear()
        event("share_done", stage=task.stage)
        return {"state": "shared"}
    manifest = artifacts.commit(
        task.key,
        folders.out,
        kind=task.kind,
        counts=summary.counts,
        headline=summary.headline,
        inputs=task.digests,
        settings=task.settings,
        code_version=task.code_version,
        telemetry={**summary.telemetry, "seconds": round(time.monotonic() - started, 3)},
    )
    shutil.rmtree(folders.out.parent, ignore_errors=True)
    shutil.rmtree(folders.work, ignore_errors=True)
    event("stage_done", stage=task.stage, digest=manifest.digest, **{**summary.headline, **summary.counts})
    return describe(manifest, "done")


def describe(manifest: Manifest, state: str) -> dict[str, Any]:
    """The few facts of an artifact that a status row holds."""
    return {
        "state": state,
        "key": manifest.key,
        "digest": manifest.digest,
        "counts": dict(manifest.counts),
        "headline": dict(manifest.headline),
        "seconds": manifest.telemetry.get("seconds", 0.0),
    }


def _call(task: Task, artifacts: Artifacts, folders: Folders) -> Summary:
    module = importlib.import_module(f"soda_jobs.stages.{task.kind}")
    try:
        settings = module.Settings.model_validate(task.settings)
    except ValidationError as error:
        raise AssertionError(f"the method gave stage {task.stage} settings it does not take: {error}") from error
    context = Context(
        run=task.run,
        stage=task.stage,
        round=task.round,
        inputs={name: tuple(_fetch(artifacts, item) for item in items) for name, items in task.inputs.items()},
        out=folders.out,
        work=folders.work,
        services=json.loads(os.environ.get("SODA_SERVICES", "{}")),
        shards=artifacts.shards(task.key),
        progress=lambda unit, done, total: progress(unit, done, total, stage=task.stage),
        share=share_of(os.environ),
        options=task.options,
    )
    summary: Summary = module.run(settings, context)
    return summary


def share_of(environment: Mapping[str, str]) -> Share:
    """The part of a shared stage that is this process's."""
    count = int(environment.get("SODA_PODS", "1"))
    return Share(int(environment.get("JOB_COMPLETION_INDEX", "0")), count) if count > 1 else Share()


def _fetch(artifacts: Artifacts, item: TaskInput) -> Input:
    manifest = artifacts.find(item.key)
    if manifest is None:
        raise Retry(f"the input artifact {item.key} is not in the store")
    return Input(artifacts.fetch(manifest), item.file or ROWS)


def _folders(key: str) -> Folders:
    state = state_folder()
    attempts = state / "out" / key
    # Attempts of the same key that died leave a folder behind; a living one is named by its process.
    for old in attempts.glob("*"):
        if not Path(f"/proc/{old.name}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folders = Folders(out=attempts / str(os.getpid()), work=state / "work" / key)
    folders.out.mkdir(parents=True)
    folders.work.mkdir(parents=True, exist_ok=True)
    return folders
