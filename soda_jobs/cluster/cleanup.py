"""Delete what only one run uses: for a run that is deleted with `deletionPolicy: Delete`.

In: SODA_RUN, SODA_PINNED, SODA_STORE, SODA_STATE. Out: {"state": "done", "artifacts": 12, "blobs": 30}, what this
attempt deleted.

Another run uses a key when its graph, walked over what is committed, comes to it, or its status.json names it. A
run saves run.yaml before it looks for artifacts, so one that begins meanwhile is seen. The stages go last to
first: a killed cleanup can still walk the graph and goes on. Blobs are remembered in cleanup.json before the first
manifest goes, and deleted once no manifest in the store names them. The run's documents go last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from soda_jobs.artifacts import Artifacts
from soda_jobs.cluster.given import committed, pinned_from_env, run_from_env
from soda_jobs.cluster.preflight import RUN_DOCUMENT
from soda_jobs.errors import GiveUp, InvalidInput
from soda_jobs.graph import with_pinned
from soda_jobs.job import run_job
from soda_jobs.load import load
from soda_jobs.local.pinned import DOCUMENT as PINNED_DOCUMENT
from soda_jobs.local.pinned import pins
from soda_jobs.log import event
from soda_jobs.methods import draw
from soda_jobs.settings import open_artifacts, state_folder, store_from_env
from soda_jobs.spec import DistillationRun

_BLOBS: Final = "cleanup.json"


def main() -> int:
    return run_job(cleanup, what="cleanup")


def cleanup() -> dict[str, Any]:
    """Delete the run's documents, and the artifacts and blobs that nothing else uses."""
    run = run_from_env()
    artifacts = open_artifacts(store_from_env(), state_folder())
    name = run.metadata.name
    if not _is_ours(run, artifacts):
        event("cleanup_skipped", run=name, reason="the documents are of a run of another namespace")
        return {"state": "done", "artifacts": 0, "blobs": 0}
    manifests, ready = committed(run, with_pinned(draw(run), pinned_from_env()), artifacts)
    blobs = set(json.loads(artifacts.get_document(name, _BLOBS) or b"[]"))
    blobs |= {sha256 for found in manifests.values() for sha256, _ in found.files.values()}
    artifacts.put_document(name, _BLOBS, json.dumps(sorted(blobs)).encode())
    others = _Others(artifacts, name)
    # Dictionaries keep the graph's order within a walk, and a stage is found after what it needs.
    keys = [*(found.key for found in manifests.values()), *ready.values()]
    deleted = [key for key in reversed(keys) if _delete(key, artifacts, others)]
    swept = artifacts.sweep(blobs)
    artifacts.delete_documents(name)
    done = {"artifacts": sum(key not in ready.values() for key in deleted), "blobs": swept}
    event("cleanup_done", run=name, **done)
    return {"state": "done", **done}


def _delete(key: str, artifacts: Artifacts, others: _Others) -> bool:
    if key in others.used():
        return False
    artifacts.delete(key)
    return True


def _is_ours(run: DistillationRun, artifacts: Artifacts) -> bool:
    """False when the documents under the run's name are of the run of another namespace."""
    saved = artifacts.get_document(run.metadata.name, RUN_DOCUMENT)
    theirs = load(saved).metadata.namespace if saved is not None else None
    return theirs is None or run.metadata.namespace in (None, theirs)


class _Others:
    """The keys that the store's other runs use; looked up again whenever another run has appeared."""

    def __init__(self, artifacts: Artifacts, ours: str) -> None:
        self._artifacts, self._ours = artifacts, ours
        self._known: dict[str, frozenset[str]] = {}

    def used(self) -> frozenset[str]:
        documents = (found.split("/") for found in self._artifacts.list_documents())
        names = {run for run, document in documents if document == RUN_DOCUMENT and run != self._ours}
        for name in names - self._known.keys():
            self._known[name] = frozenset(self._keys(name))
        return frozenset().union(*self._known.values())

    def _keys(self, name: str) -> Iterator[str]:
        status = json.loads(self._artifacts.get_document(name, "status.json") or b"{}")
        yield from (row["key"] for row in status.get("stages", ()) if row["key"])
        saved = self._artifacts.get_document(name, RUN_DOCUMENT)
        if saved is None:  # its own cleanup was faster
            return
        try:
            run = load(saved)
        except InvalidInput as error:
            raise GiveUp(
                f"runs/{name}/{RUN_DOCUMENT} in the store cannot be read ({error}), so nobody knows what that run "
                "uses and nothing was deleted; correct it, or delete it"
            ) from error
        graph = draw(run)
        pinned = self._artifacts.get_document(name, PINNED_DOCUMENT)
        manifests, ready = committed(
            run, with_pinned(graph, json.loads(pinned) if pinned else pins(graph)), self._artifacts
        )
        yield from (found.key for found in manifests.values())
        yield from ready.values()
