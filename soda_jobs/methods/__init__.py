"""The methods, each a pure function from a run to its stage graph. One table; a preset is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from soda_jobs.errors import InvalidInput
from soda_jobs.graph import Graph
from soda_jobs.methods.soda import soda
from soda_jobs.spec import DistillationRun

# IterKD is the first version of the SODA paper: the same stages and losses under an earlier name.
METHODS: Final[Mapping[str, Callable[[DistillationRun], Graph]]] = {"soda": soda, "iterkd": soda}


def draw(run: DistillationRun) -> Graph:
    """The stage graph of a run."""
    method = METHODS.get(run.spec.method)
    if method is None:
        known = ", ".join(METHODS)
        raise InvalidInput(f"{run.spec.method!r} cannot be run yet; use one of {known}", field="spec.method")
    return method(run)
