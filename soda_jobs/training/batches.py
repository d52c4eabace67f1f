"""Which rows each optimizer step sees. Pure: a step's rows follow from the settings and the lengths alone.

Rows flow as one stream: a shuffled pass over all rows, then another, cut into batches of exactly `batch_size`.
Every step therefore has equal weight, a batch may straddle two passes, and resuming at step n needs only n.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final

from soda_jobs.errors import InvalidInput

# Tokens, padding included, of one forward pass when `micro_batch_size` is left open. Small on a CPU, whose caches
# then hold the activations; on a GPU enough to keep it busy.
MICRO_BATCH_TOKENS: Final = {"cpu": 2048, "cuda": 16384}


def count_steps(rows: int, epochs: float, batch_size: int) -> int:
    """Optimizer steps of `epochs` passes over `rows`; a part of a batch is a step (88,000 x 3 / 512 makes 516)."""
    return max(1, math.ceil(round(rows * epochs / batch_size, 6)))


def draw_rows(lengths: Sequence[int], *, steps: int, batch_size: int, seed: int) -> list[int]:
    """Row positions of all steps, `steps * batch_size` long; the batch of step n starts at `n * batch_size`.

    Within a batch the longest rows come first, so that micro-batches cut from it need little padding. The sum over
    the batch, and so the gradient, does not depend on this order.
    """
    stream: list[int] = []
    epoch = 0
    while len(stream) < steps * batch_size:
        rows = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(rows)
        stream += rows
        epoch += 1
    order: list[int] = []
    for start in range(0, steps * batch_size, batch_size):
        order += sorted(stream[start : start + batch_size], key=lambda row: (-lengths[row], row))
    return order


def micro_batch_size(
    batch_size: int, wanted: int | None, *, processes: int, device: str, tokens_per_row: int
) -> int:
    """Rows per forward pass of one process; `processes` times this divides `batch_size`.

    `tokens_per_row` is the longest row (both answers of a preference row).
    """
    if batch_size % processes:
        raise InvalidInput(f"{batch_size} is not a multiple of the {processes} processes", field="batch_size")
    share = batch_size // processes
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    if wanted is not None:
        if wanted not in divisors:
            accepted = ", ".join(map(str, divisors))
            raise InvalidInput(
                f"{wanted} does not divide the {share} rows of one process and step; accepted: {accepted}",
                field="micro_batch_size",
            )
        return wanted
    budget = MICRO_BATCH_TOKENS[device]
    return max([size for size in divisors if size * tokens_per_row <= budget], default=1)
