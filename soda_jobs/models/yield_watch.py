"""Stop a stage that mostly wastes what it asks for, before it has asked for much.

In: for each row whether it gave something usable, else the reason why not. Out: `LowYield`, as soon as of 200 rows
that were begun one after the other more are lost than the floor leaves.

Rows are counted with those begun at their side, not with those that end at the same time: a lost row is asked for
twice, so what ends last of many has lost more than its share. At first only as many rows are on their way as the
floor wants usable among 200, so that a stage which loses all has asked for 200.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from soda_jobs.errors import GiveUp
from soda_jobs.models.client import CEILING

BLOCK: Final = 200  # rows

# The most frequent reason -> what to change; {role} is the model's block of the spec.
_ADVICE: Final = {
    "truncated": "raise maxTokens in {role}.sampling, or use a model that answers more briefly",
    "refused": "use another model, or other prompts (spec.prompts)",
    "content_filter": "use another model or endpoint, whose filter lets these questions pass",
    "empty": "check that the model is one for chat and has its chat template",
    "no_marker": "use a model that follows instructions better, or other prompts (spec.prompts)",
    "unreadable": "use a better model, or train the scoring model on more samples",
    "context_overflow": "raise {role}.server.maxModelLen, or leave out the longest questions",
    "timeout": "lower maxTokens in {role}.sampling, or give the server more GPUs",
}
_OTHERWISE: Final = "look at the server's log"


class LowYield(GiveUp):
    """A stage lost more rows than its floor leaves."""


class YieldWatch:
    """Counts what became of the rows of one stage; `floor` is the least share that must be usable, 0 for none."""

    def __init__(self, floor: float, *, stage: str, role: str) -> None:
        self._floor, self._stage, self._role = floor, f"stage {stage}", f"spec.{role}"
        self._wanted = math.ceil(round(floor * BLOCK, 9))  # usable rows in a block
        self._begun = self._usable = 0
        self._is_over = False
        self._lost: dict[int, Counter[str]] = defaultdict(Counter)
        self._places = asyncio.Semaphore(self._wanted or CEILING)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """A row's place among those on their way; yields the number of its block."""
        await self._places.acquire()
        self._begun += 1
        try:
            yield (self._begun - 1) // BLOCK
        finally:
            if not self._is_over:  # nobody takes the place of the row that ended the stage
                self._places.release()

    def count(self, block: int, reason: str | None) -> None:
        """One row has ended: usable (None), or lost for this reason. Raises LowYield."""
        if reason is not None:
            lost = self._lost[block]
            lost[reason] += 1
            if lost.total() > BLOCK - self._wanted:
                self._is_over = True
                raise LowYield(self._sentence(lost))
            return
        self._usable += 1
        if self._usable == self._wanted:
            for _ in range(CEILING - self._wanted):
                self._places.release()

    def _sentence(self, lost: Counter[str]) -> str:
        top, count = lost.most_common(1)[0]
        advice = _ADVICE.get(top, _OTHERWISE).format(role=self._role)
        return (
            f"{self._stage} was stopped: of {BLOCK} rows in a row {lost.total()} gave nothing usable, and "
            f"{self._floor:.0%} should ({self._role}.yieldFloor); most often the reason was {top} ({count}): "
            f"{advice}; what is committed stays"
        )
