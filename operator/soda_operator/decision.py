"""The answer of `reconcile`: what to write, make and delete for one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]
Ref = tuple[str, str]  # kind, name


@dataclass
class Decision:
    """What to do, in this order: finalizers, status, deletions, objects, and when to look again."""

    status: Raw | None = None  # None: as it is
    apply: list[Raw] = field(default_factory=list)
    delete: list[Ref] = field(default_factory=list)
    finalizers: list[str] | None = None  # None: as they are
    delete_run: bool = False
    again: float | None = None

    def look_again(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)
