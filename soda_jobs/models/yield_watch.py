"""Stop a stage that mostly wastes what it asks for, before it has asked for much.

In: for each row whether it gave something usable, else the reason why not. Out: `LowYield`, as soon as more of the
last 200 rows were lost than the floor leaves. Only 100 rows are on their way until the first 100 have ended, so
that a stage that loses all of them has asked for 200 at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from soda_jobs.errors import GiveUp
from soda_jobs.models.client import CEILING

WINDOW: Final = 200  # rows
TRIAL: Final = 100  # rows on their way at first, and that must end before there may be more

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
        self._last: deque[str | None] = deque(maxlen=WINDOW)
        self._ended = 0
        self._places = asyncio.Semaphore(TRIAL if floor else CEILING)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A row's place among those on their way."""
        async with self._places:
            yield

    def count(self, reason: str | None) -> None:
        """One row has ended: usable (None), or lost for this reason. Raises LowYield."""
        self._last.append(reason)
        self._ended += 1
        lost = Counter(found for found in self._last if found is not None)
        if lost.total() > round((1 - self._floor) * WINDOW, 9):
            raise LowYield(self._sentence(lost))
        if self._ended == TRIAL and self._floor:
            for _ in range(CEILING - TRIAL):
                self._places.release()

    def _sentence(self, lost: Counter[str]) -> str:
        (top, count), seen = lost.most_common(1)[0], len(self._last)
        usable = seen - lost.total()
        advice = _ADVICE.get(top, _OTHERWISE).format(role=self._role)
        return (
            f"{self._stage} was stopped: only {usable} of its last {seen} rows were usable, under the "
            f"floor of {self._floor:.0%} ({self._role}.yieldFloor); most often the reason was {top} ({count}): "
            f"{advice}; what is committed stays"
        )
