"""Before a run asks for anything: is its store usable, are its sources there, what is done already.

In: SODA_RUN, SODA_STORE, SODA_STATE. Out: the documents run.yaml and pinned.json of the run in the store, and

    {"state": "done", "pinned": {stage: SHA-256}, "finished": "the text of soda_jobs.finished"}

A run that cannot work ends here, before a server or a GPU is asked for, with one sentence that names the field.
"""

from __future__ import annotations

import json
from typing import Any, Final

from soda_jobs.artifacts import Artifacts
from soda_jobs.cluster.given import committed, run_from_env, to_yaml
from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.finished import LIMIT, encode
from soda_jobs.graph import Graph, Kind, with_pinned
from soda_jobs.job import RESULT_LIMIT, run_job
from soda_jobs.load import load
from soda_jobs.local.pinned import DOCUMENT as PINNED_DOCUMENT
from soda_jobs.local.pinned import pins
from soda_jobs.log import event
from soda_jobs.methods import draw
from soda_jobs.reading import is_in_bucket
from soda_jobs.settings import StoreSettings, open_artifacts, state_folder, store_from_env
from soda_jobs.spec import DistillationRun

RUN_DOCUMENT: Final = "run.yaml"
_SPARE: Final = 64  # bytes of a result's punctuation


def main() -> int:
    return run_job(preflight, what="preflight")


def preflight() -> dict[str, Any]:
    """Check the run and the store, keep what describes the run, and find what is committed."""
    run = run_from_env()
    artifacts = _open(store_from_env(), run.metadata.name)
    graph = draw(run)
    _check_sources(run, graph)
    pinned = pins(graph)
    _keep(run, pinned, artifacts)
    graph = with_pinned(graph, pinned)
    found, _ = committed(run, graph, artifacts)
    event("preflight_done", run=run.metadata.name, stages=len(graph.stages), committed=len(found))
    room = RESULT_LIMIT - len(json.dumps(pinned)) - _SPARE
    stages = [stage.name for stage in graph]
    digests = {name: manifest.digest for name, manifest in found.items()}
    return {"state": "done", "pinned": pinned, "finished": encode(stages, digests, min(LIMIT, room))}


def _open(store: StoreSettings, run: str) -> Artifacts:
    """The store, after one write of each kind that a run makes."""
    try:
        artifacts = open_artifacts(store, state_folder(), create=True)
        artifacts.try_writing(run)
    except Retry as error:
        field = "spec.storage.endpoint" if store.endpoint else "spec.storage.url"
        raise Retry(f"{field}: {error}; if it stays so, correct {field}") from error
    return artifacts


def _check_sources(run: DistillationRun, graph: Graph) -> None:
    """InvalidInput for a source in a bucket that is not there. Hubs are left to the stages that ask them."""
    wanted = [
        (_field(stage.name, stage.settings["what"]), stage.settings["source"])
        for stage in graph
        if stage.kind is Kind.SOURCE
    ]
    wanted += [("spec.teacher.model", run.spec.teacher.model)]
    for field, source in wanted:
        if source is None or not source.startswith("s3://"):
            continue
        try:
            there = is_in_bucket(source, folder=field.endswith(".model"))
        except InvalidInput as error:
            raise InvalidInput(f"{source} cannot be read ({error})", field=field) from error
        if not there:
            raise InvalidInput(f"{source} is not there; correct it, or put it there", field=field)


def _field(stage: str, what: str) -> str:
    """The field of the spec that a source stage's source comes from."""
    if what == "model":
        return "spec.student.model" if stage == "student" else "spec.judge.model"
    return "spec.questions.source" if what == "questions" else "spec.evaluation.benchmarks"


def _keep(run: DistillationRun, pinned: dict[str, str], artifacts: Artifacts) -> None:
    """Write what `soda report NAME --store` and the cleanup of other runs read."""
    name, namespace = run.metadata.name, run.metadata.namespace
    saved = artifacts.get_document(name, RUN_DOCUMENT)
    theirs = load(saved).metadata.namespace if saved is not None else None
    if theirs is not None and namespace is not None and theirs != namespace:
        raise InvalidInput(
            f"{name!r} is a run of the namespace {theirs} in this store already; use another name, or another "
            "prefix in spec.storage.url",
            field="metadata.name",
        )
    artifacts.put_document(name, PINNED_DOCUMENT, json.dumps(pinned).encode())
    artifacts.put_document(name, RUN_DOCUMENT, to_yaml(run).encode())
