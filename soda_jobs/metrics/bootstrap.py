"""Percentile bootstrap over tasks: how far a mean would move had other tasks of the same kind been drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence


def confidence_interval(
    groups: Sequence[Sequence[float]], *, samples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean over groups of their means (Efron and Tibshirani 1993, chapter 13).

    Each group (a language) is resampled by itself, with replacement, `samples` times. Bounds have the unit of
    the values. Equal input and seed give equal bounds. One value alone, or equal ones, give an interval without
    width, which says nothing. For a paired difference give the differences of the pairs as the values.
    Raises ValueError for an empty group and for a value that is not a finite number.
    """
    import numpy as np

    if not groups or not all(map(len, groups)):
        raise ValueError("a confidence interval needs at least one value in every group")
    if not all(math.isfinite(value) for values in groups for value in values):
        raise ValueError("a confidence interval needs finite numbers, and one of the values is not; leave it out")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"{samples} samples at level {level} give no interval; use at least 1, and 0 < level < 1")
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.zeros(samples)
    for values in groups:
        array = np.asarray(values, dtype=np.float64)
        drawn = generator.integers(len(array), size=(samples, len(array)))
        means += array[drawn].mean(axis=1) / len(groups)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
