"""One conflict between fields, as one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soda_jobs.spec.base import show


@dataclass(frozen=True)
class Conflict:
    """Fields that do not fit together. `field` is the one to change, in YAML spelling; `also` are the others that
    were read: when one of them is wrong by itself, the conflict is only its shadow."""

    field: str
    value: Any
    message: str
    also: tuple[str, ...] = ()


def conflict(field: str, value: Any, why: str, use: str, *also: str) -> Conflict:
    return Conflict(field, value, f"{show(value)} {why}; {use}", also)
