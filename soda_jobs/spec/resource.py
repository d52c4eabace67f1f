"""The resource itself, and which of its fields may change once the run has started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from soda_jobs.spec.base import Block
from soda_jobs.spec.rules import conflicts
from soda_jobs.spec.run import Metadata, Spec

CONFLICTS: Final = "conflicts"

CHANGEABLE: Final = frozenset(
    {
        "spec.budget",
        "spec.cancel",
        "spec.deletionPolicy",
        "spec.priority",
        "spec.queue",
        "spec.retryToken",
        "spec.suspend",
        "spec.ttlSecondsAfterFinished",
    }
)


class DistillationRun(Block):
    """One distillation: a strong model's skill into a small one."""

    api_version: Literal["soda.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["DistillationRun"]
    """Kind of the resource."""
    metadata: Metadata
    """What Kubernetes knows the run by."""
    spec: Spec
    """What to do."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = conflicts(self.metadata, self.spec)
        if found:
            text = "; ".join(f"{item.field}: {item.message}" for item in found)
            raise PydanticCustomError(CONFLICTS, "{text}", {"text": text, CONFLICTS: found})
        return self


def forbidden_changes(old: DistillationRun, new: DistillationRun) -> list[str]:
    """Fields of the spec that differ and may not, in YAML spelling and in the order of the spec. A field whose
    default was written out has not changed."""
    before, after = (run.spec.model_dump(mode="json", by_alias=True) for run in (old, new))
    return [path for path in _differences(before, after, "spec") if not _may_change(path)]


def _may_change(path: str) -> bool:
    return any(path == field or path.startswith(f"{field}.") for field in CHANGEABLE)


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield path
