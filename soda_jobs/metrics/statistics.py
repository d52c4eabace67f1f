"""Comparing two models and two judges: gains, Wilcoxon's signed-rank test, McNemar's test, Cohen's kappa."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_EXACT_LIMIT = 25  # pairs up to which the exact null distribution is used


def relative_gain(value: float, base: float) -> float:
    """100 (a - b) / b, in percent of the base. Raises ZeroDivisionError for a base of 0."""
    return 100 * (value - base) / base


def gain_ratio(value: float, other: float, base: float) -> float:
    """How much larger one gain over the base is than another, in percent: 100 (g_a / g_b - 1).

    This is the number SODA's abstract calls an improvement over another method. Raises ZeroDivisionError when
    the other method gained nothing.
    """
    return 100 * (relative_gain(value, base) / relative_gain(other, base) - 1)


@dataclass(frozen=True)
class TestResult:
    """`n` counts the pairs that differ; `p` is two-sided."""

    __test__ = False  # not a test case, whatever its name

    statistic: float
    p: float
    n: int


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> TestResult:
    """Wilcoxon's signed-rank test of paired values (Wilcoxon 1945; Hollander and Wolfe, chapter 3).

    Zero differences are dropped; ties share the average rank; the statistic is min(W+, W-). Up to 25 pairs the
    null distribution is exact, over the ranks as they are, ties too; beyond, normal with corrections for ties
    and continuity. Without any difference p is 1.
    """
    # Published scores have one decimal: rounding undoes what binary subtraction adds, so that ties are seen.
    differences = [round(a - b, 9) for a, b in zip(first, second, strict=True)]
    differences = [value for value in differences if value != 0]
    n = len(differences)
    if n == 0:
        return TestResult(0.0, 1.0, 0)
    ranks = _ranks([abs(value) for value in differences])
    plus = sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0)
    statistic = min(plus, n * (n + 1) / 2 - plus)
    if n <= _EXACT_LIMIT:
        return TestResult(statistic, _exact_p(ranks, statistic), n)
    ties = Counter(ranks).values()
    variance = n * (n + 1) * (2 * n + 1) / 24 - sum(t**3 - t for t in ties) / 48
    z = max(0.0, n * (n + 1) / 4 - statistic - 0.5) / math.sqrt(variance)
    return TestResult(statistic, min(1.0, math.erfc(z / math.sqrt(2))), n)


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the average of theirs."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), start=1):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def _exact_p(ranks: Sequence[float], statistic: float) -> float:
    """P(min(W+, W-) <= statistic) when each rank has either sign with equal probability."""
    doubled = [round(2 * rank) for rank in ranks]  # shared ranks end in .5
    ways = [1] + [0] * sum(doubled)
    for rank in doubled:
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return min(1.0, 2 * sum(ways[: round(2 * statistic) + 1]) / float(1 << len(ranks)))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> TestResult:
    """McNemar's exact test of paired outcomes (McNemar 1947): of the tasks where two models differ, who wins?"""
    pairs = Counter(zip(first, second, strict=True))
    ahead, behind = pairs[True, False], pairs[False, True]
    n, fewer = ahead + behind, min(ahead, behind)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return TestResult(float(fewer), min(1.0, 2 * tail / 2**n), n)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """(p_o - p_e) / (1 - p_e), agreement beyond chance (Cohen 1960).

    When chance alone agrees always (p_e = 1), it is 1 if they do and 0 if not. Raises ValueError without pairs.
    """
    n = _paired(first, second)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    shares, others = Counter(first), Counter(second)
    expected = sum(count * others[value] for value, count in shares.items()) / n**2
    if expected == 1:
        return 1.0 if observed == 1 else 0.0
    return (observed - expected) / (1 - expected)


def quadratic_kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Weighted kappa for ordered categories: disagreement counts by the square of its size (Cohen 1968)."""
    n = _paired(first, second)
    observed = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) / n
    shares, others = Counter(first), Counter(second)
    expected = sum(p * q * (a - b) ** 2 for a, p in shares.items() for b, q in others.items()) / n**2
    if expected == 0:
        return 1.0 if observed == 0 else 0.0
    return 1 - observed / expected


def _paired(first: Sequence[object], second: Sequence[object]) -> int:
    if not first or len(first) != len(second):
        raise ValueError(f"kappa needs pairs, not {len(first)} and {len(second)} values")
    return len(first)


def half_away(value: float) -> int:
    """The nearest whole number, halves away from zero: 2.5 is 3. Score totals become categories this way."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
