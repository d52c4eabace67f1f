"""Every mistake of a run at once. In: plain data, however wrong. Out: the run, or a sentence for each mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from soda_jobs.spec import sentences
from soda_jobs.spec.conflict import Conflict
from soda_jobs.spec.resource import CONFLICTS, DistillationRun

# Stands in for what is missing while the rules between the other fields are checked.
_SMALLEST: Final[dict[str, Any]] = {
    "apiVersion": "soda.dev/v1alpha1",
    "kind": "DistillationRun",
    "metadata": {"name": "x"},
    "spec": {"method": "soda", "student": {}},
}


@dataclass(frozen=True)
class Problem:
    """One mistake: the field in YAML spelling, what it holds, what is wrong and which values are accepted.

    `line` counts from 1; None when the mistake was not found in a text.
    """

    field: str
    value: Any
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def check(data: Any) -> tuple[DistillationRun | None, list[Problem]]:
    """The run that `data` describes, or None and every mistake, in the order of the spec."""
    try:
        return _validate(data), []
    except ValidationError as error:
        errors = _independent(error.errors(include_url=False))
    found = [_problem(item) for item in errors if item["type"] != CONFLICTS]
    if not found:
        return None, [_from_conflict(conflict) for conflict in _conflicts(errors)]
    suspect = [place for item in errors for place in _suspect(item)]
    return None, [*found, *_remaining_conflicts(data, errors, suspect)]


def _independent(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without complaints that a list is too short when what it lacks are its own wrong items."""
    places = [item["loc"] for item in errors]

    def is_echo(item: ErrorDetails) -> bool:
        size = len(item["loc"])
        return item["type"] == "too_short" and any(loc[:size] == item["loc"] and len(loc) > size for loc in places)

    return [item for item in errors if not is_echo(item)]


def _validate(data: Any) -> DistillationRun:
    return DistillationRun.model_validate(data, by_alias=True, by_name=False)


def _conflicts(errors: Sequence[ErrorDetails]) -> list[Conflict]:
    return [conflict for item in errors if item["type"] == CONFLICTS for conflict in item["ctx"][CONFLICTS]]


def _from_conflict(conflict: Conflict) -> Problem:
    return Problem(conflict.field, conflict.value, conflict.message)


def _problem(error: ErrorDetails) -> Problem:
    loc, kind = error["loc"], error["type"]
    if kind == "missing":
        return Problem(sentences.path(loc), None, sentences.missing(loc))
    if kind == "extra_forbidden":
        return Problem(sentences.path(loc), error["input"], sentences.unknown(loc))
    return Problem(sentences.path(loc), error["input"], sentences.refused(loc, error["input"]))


def _suspect(error: ErrorDetails) -> list[str]:
    """The places that this error makes untrustworthy: its own, and the one that a misspelt key was meant for."""
    loc = error["loc"]
    near = sentences.nearest(loc) if error["type"] == "extra_forbidden" else None
    return [sentences.path(loc)] + ([] if near is None else [sentences.path([*loc[:-1], near])])


def _remaining_conflicts(data: Any, errors: Sequence[ErrorDetails], suspect: Sequence[str]) -> list[Problem]:
    """Conflicts among the fields that are fine by themselves: the wrong ones are left out and checked again."""
    if not isinstance(data, Mapping):
        return []
    for item in errors:
        data = _without(data, _prunable(item))
    try:
        _validate(_merged(_SMALLEST, data))
    except ValidationError as error:
        found = _conflicts(error.errors(include_url=False))
    else:
        return []
    return [_from_conflict(item) for item in found if not _depends(item, suspect)]


def _prunable(error: ErrorDetails) -> tuple[str | int, ...]:
    """What to leave out: the field, or the whole list when it is in a list, or the block that lacks a field."""
    loc = error["loc"]
    for index, step in enumerate(loc):
        if isinstance(step, int):
            return loc[:index]
    stands_in = isinstance(_get(_SMALLEST, loc[:-1]), Mapping)
    return loc[:-1] if error["type"] == "missing" and not stands_in else loc


def _get(data: Any, loc: Sequence[str | int]) -> Any:
    for step in loc:
        data = data.get(step) if isinstance(data, Mapping) else None
    return data


def _without(data: Any, loc: Sequence[str | int]) -> Any:
    if not loc or not isinstance(data, Mapping):
        return {}
    rest = {key: value for key, value in data.items() if key != loc[0]}
    if len(loc) == 1 or loc[0] not in data:
        return rest
    return {**rest, loc[0]: _without(data[loc[0]], loc[1:])}


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _merged(base[key], value) if key in base else value for key, value in over.items()}}


def _depends(conflict: Conflict, suspect: Sequence[str]) -> bool:
    return any(_overlaps(read, place) for read in (conflict.field, *conflict.also) for place in suspect)


def _overlaps(one: str, other: str) -> bool:
    """`spec.teacher` overlaps `spec.teacher.model` and `spec.teacher`, not `spec.teachers`."""
    short, long = sorted((one, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ".[")
