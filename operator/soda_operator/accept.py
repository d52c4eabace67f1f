"""Whether a run can be worked on. In: the resource. Out: the run with its graph and storage, or why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soda_jobs.graph import Graph
from soda_jobs.methods import draw
from soda_jobs.spec import Storage
from soda_jobs.spec.check import check
from soda_operator.config import Config
from soda_operator.faults import Fault, fault
from soda_operator.pods import Owner

SHOWN = 5


@dataclass(frozen=True)
class Accepted:
    """A run that is fine: who owns what is made, and the stages to go through."""

    owner: Owner
    graph: Graph


def accept(resource: Mapping[str, Any], config: Config) -> Accepted | Fault:
    """Everything that the spec alone decides; the operator keeps the answer for each generation."""
    metadata = resource["metadata"]
    document = {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": resource["spec"],
    }
    run, problems = check(document)
    if run is None:
        shown = [str(item) for item in problems[:SHOWN]]
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        return fault("InvalidSpec", "spec", " | ".join([*shown, *rest]))
    storage = _storage(run.spec.storage, config)
    if storage is None:
        return fault("StorageMissing", "spec.storage.url", run.spec.storage.url)
    owner = Owner(run, metadata["namespace"], metadata["uid"], storage, config)
    return Accepted(owner, draw(run))


def _storage(asked: Storage, config: Config) -> Storage | None:
    """A folder is for a laptop; here the installation's own storage takes its place."""
    return asked if asked.url.startswith("s3://") else config.storage
