"""The report of a run that has ended, for people who open the store.

In: SODA_RUN, SODA_PINNED, SODA_STORE, SODA_STATE, and SODA_STATES, JSON {stage: "done" | "reused"}.
Out: status.json, report.html and report.json among the run's documents, and

    {"state": "done", "report": "s3://bucket/prefix/runs/NAME/report.html"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast

from soda_jobs.artifacts import Manifest
from soda_jobs.cluster.given import committed, pinned_from_env, run_from_env, to_yaml
from soda_jobs.errors import GiveUp
from soda_jobs.graph import Graph, with_pinned
from soda_jobs.job import run_job
from soda_jobs.local.executor import StageRow, State
from soda_jobs.local.publish import publish as write_report
from soda_jobs.local.session import Session, save_status
from soda_jobs.methods import draw
from soda_jobs.settings import open_artifacts, state_folder, store_from_env


def main() -> int:
    return run_job(publish, what="publish")


def publish() -> dict[str, Any]:
    """Write the run's report and status from what is committed."""
    run, store, state = run_from_env(), store_from_env(), state_folder()
    artifacts = open_artifacts(store, state)
    graph = with_pinned(draw(run), pinned_from_env())
    manifests, _ = committed(run, graph, artifacts)
    rows = stage_rows(graph, manifests, json.loads(os.environ.get("SODA_STATES", "{}")))
    session = Session(run, graph, to_yaml(run), store, artifacts, state)
    path = write_report(session, rows)
    save_status(session, rows, state="Succeeded")
    return {"state": "done", "report": f"{store.url.rstrip('/')}/runs/{session.name}/{path.name}"}


def stage_rows(graph: Graph, manifests: Mapping[str, Manifest], states: Mapping[str, str]) -> list[StageRow]:
    """One row for each stage, from its artifact. GiveUp when one has none."""
    missing = [stage.name for stage in graph if stage.name not in manifests]
    if missing:
        raise GiveUp(
            f"{len(missing)} of {len(graph.stages)} stages have no artifact in the store, the first is "
            f"{missing[0]}; a new spec.retryToken makes them again"
        )
    rows = []
    for stage in graph:
        found = manifests[stage.name]
        row = StageRow(stage.name, stage.kind.value, stage.round, key=found.key, digest=found.digest)
        row.state = cast(State, states.get(stage.name, "done"))
        row.counts, row.headline, row.telemetry = found.counts, found.headline, found.telemetry
        row.seconds = found.telemetry.get("seconds", 0.0)
        rows.append(row)
    return rows
