"""pass@k: how likely at least one of k samples is right, estimated without bias from n samples."""

from __future__ import annotations

import math


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k), in [0, 1] (Chen et al. 2021, "Evaluating Large Language Models Trained on Code").

    SODA's "any of k passes" (section 4.5) is this value at n = k. Raises ValueError unless 1 <= k <= n and
    0 <= c <= n.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"pass@{k} of {correct} correct among {samples} samples is not defined")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
