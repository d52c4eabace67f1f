"""What a Job is given: the run and the pinned contents of its sources. What it finds: the committed stages.

SODA_RUN     JSON of the resource: apiVersion, kind, metadata (name, namespace), spec
SODA_PINNED  JSON {stage: SHA-256 of its source}, as the preflight found them
"""

from __future__ import annotations

import json
import os
from typing import Any

import yaml

from soda_jobs.artifacts import Artifacts, Manifest
from soda_jobs.errors import InvalidInput
from soda_jobs.graph import Graph
from soda_jobs.plan import Finished, plan
from soda_jobs.spec import DistillationRun
from soda_jobs.spec.check import check


def run_from_env() -> DistillationRun:
    """The run in SODA_RUN; every mistake in it is one line of an InvalidInput."""
    run, found = check(json.loads(_variable("SODA_RUN")))
    if run is None:
        raise InvalidInput("\n".join(map(str, found)))
    return run


def pinned_from_env() -> dict[str, str]:
    return dict(json.loads(_variable("SODA_PINNED")))


def _variable(name: str) -> str:
    text = os.environ.get(name)
    if text is None:
        raise InvalidInput(f"the environment variable {name} is not set; the operator sets it for its Jobs")
    return text


def committed(
    run: DistillationRun, graph: Graph, artifacts: Artifacts
) -> tuple[dict[str, Manifest], dict[str, str]]:
    """The graph's committed stages by name, and the keys of those that could start now."""
    manifests: dict[str, Manifest] = {}
    while True:
        finished = {name: Finished(found.key, found.digest) for name, found in manifests.items()}
        ready = {item.stage: item.key for item in plan(run, graph, finished)}
        found = {stage: artifacts.find(key) for stage, key in ready.items()}
        new = {stage: manifest for stage, manifest in found.items() if manifest is not None}
        if not new:
            return manifests, ready
        manifests |= new


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be read as a number by the rules of YAML 1.2."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    like_a_number = text[:1] in set("0123456789.+-")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if like_a_number else None)


_Dumper.add_representer(str, _text)


def to_yaml(run: DistillationRun) -> str:
    """The run as a file for `soda run`: what was written, without the defaults."""
    document: dict[str, Any] = run.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
