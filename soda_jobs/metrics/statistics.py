"""Comparing two models and two judges: gains, the tests of Wilcoxon and McNemar, Holm's correction, Cohen's kappa.

Plain numbers in, plain numbers out. SciPy does what it has (ranks, the normal approximation, the binomial test).
Exact signed ranks with ties, Holm and kappa are a few lines here: SciPy has none of them, and statsmodels or
scikit-learn would be a heavy dependency for so little. docs/statistics.md says which to use when.

Every function raises ValueError, with one plain sentence, for input that has no answer: NaN, infinities, two
sequences of different length. A test of no pairs found nothing: its p is 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

_EXACT_LIMIT: Final = 25  # pairs up to which the exact null distribution of the signed ranks is counted
Weights = Literal["linear", "quadratic"]


# -- gains -----------------------------------------------------------------------------------------


def relative_gain(value: float, base: float) -> float:
    """100 (a - b) / b, in percent of the base: "improves the student by 84.18 %" (SODA, section 5.1)."""
    _finite([value, base], "a relative gain")
    if base == 0:
        raise ValueError("a relative gain over a base of 0 is not defined; compare the difference instead")
    return 100 * (value - base) / base


def gain_ratio(value: float, other: float, base: float) -> float:
    """How much larger one gain over the base is than another, in percent: 100 (g_a / g_b - 1).

    This is the number SODA's abstract calls "outperforming the best baseline by 29.85 %": the ratio of the two
    relative gains, in which the base cancels. It is not `relative_gain(value, other)`, which is 10.1 % there.
    """
    gain, less = relative_gain(value, base), relative_gain(other, base)
    if less == 0:
        raise ValueError("a gain ratio to a method that gained nothing is not defined; compare the difference")
    return 100 * (gain / less - 1)


# -- tests of pairs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TestResult:
    """`n` counts the pairs that differ; `p` is two-sided; `name` says which test it was."""

    __test__ = False  # not a test case, whatever its name

    statistic: float
    p: float
    n: int
    name: str = ""


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> TestResult:
    """Wilcoxon's signed-rank test of paired values (Wilcoxon 1945; Hollander and Wolfe, chapter 3).

    Zero differences are dropped; ties share the average rank; the statistic is min(W+, W-). Up to 25 pairs the
    null distribution is exact, over the ranks as they are, ties too; beyond, normal with corrections for ties
    and continuity. Without any difference p is 1.
    """
    from scipy import stats

    _same_length(first, second, "Wilcoxon's test")
    _finite([*first, *second], "Wilcoxon's test")
    # Published scores have one decimal: rounding undoes what binary subtraction adds, so that ties are seen.
    differences = [round(a - b, 9) for a, b in zip(first, second, strict=True)]
    differences = [value for value in differences if value != 0]
    n = len(differences)
    if n == 0:
        return TestResult(0.0, 1.0, 0, "Wilcoxon, exact")
    ranks = [float(rank) for rank in stats.rankdata([abs(value) for value in differences])]
    plus = sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0)
    statistic = min(plus, n * (n + 1) / 2 - plus)
    if n <= _EXACT_LIMIT:
        return TestResult(statistic, _exact_p(ranks, statistic), n, "Wilcoxon, exact")
    p = float(stats.wilcoxon(differences, correction=True, method="asymptotic").pvalue)
    return TestResult(statistic, min(1.0, p), n, "Wilcoxon, normal")


def _exact_p(ranks: Sequence[float], statistic: float) -> float:
    """P(min(W+, W-) <= statistic) when each rank has either sign with equal probability."""
    doubled = [round(2 * rank) for rank in ranks]  # shared ranks end in .5
    ways = [1] + [0] * sum(doubled)
    for rank in doubled:
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return min(1.0, 2 * sum(ways[: round(2 * statistic) + 1]) / float(1 << len(ranks)))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> TestResult:
    """McNemar's test of paired outcomes (McNemar 1947): of the tasks where two models differ, who wins more?

    Exact for any number of discordant pairs, few or many: the binomial test of the smaller count, whose large-n
    approximation is the chi-square form. The statistic is that count. Without discordant pairs p is 1.
    """
    from scipy import stats

    _same_length(first, second, "McNemar's test")
    if not {*first, *second} <= {False, True}:
        raise ValueError("McNemar's test needs outcomes that are true or false; for other values use Wilcoxon's")
    pairs = Counter(zip(map(bool, first), map(bool, second), strict=True))
    ahead, behind = pairs[True, False], pairs[False, True]
    n, fewer = ahead + behind, min(ahead, behind)
    p = float(stats.binomtest(fewer, n).pvalue) if n else 1.0
    return TestResult(float(fewer), min(1.0, p), n, "McNemar, exact")


def compare_pairs(first: Sequence[float], second: Sequence[float]) -> TestResult:
    """The test for task-by-task scores: McNemar's where every task is either solved or not, else Wilcoxon's."""
    if {*first, *second} <= {0, 1}:
        return mcnemar([value == 1 for value in first], [value == 1 for value in second])
    return wilcoxon(first, second)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them at once, in the given order (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none may fall below a smaller one. An adjusted value
    below 0.05 keeps the chance of even one false claim among the m below 5 %, whatever their dependence.
    """
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("Holm's correction needs p-values from 0 to 1, and one of the values is none")
    adjusted = [0.0] * len(values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = highest
    return adjusted


# -- agreement of judges ---------------------------------------------------------------------------


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable], weights: Weights | None = None) -> float:
    """Agreement of two judges beyond chance: 1 is perfect, 0 is chance, below 0 is worse than chance.

    Without weights (p_o - p_e) / (1 - p_e) over categories of any kind (Cohen 1960). With weights the categories
    are numbers, and a disagreement counts by its size, or by the square of its size (Cohen 1968): 1 minus the
    observed over the expected disagreement. When chance alone cannot disagree, which is when both judges know
    one word and it is the same, it is 1.
    """
    n = _same_length(first, second, "kappa")
    if n == 0:
        raise ValueError("kappa needs at least one pair of values")
    if any(isinstance(value, float) and math.isnan(value) for value in (*first, *second)):
        raise ValueError("kappa needs categories, and one of the values is NaN; leave the pair out")
    distance = _distance(weights, [*first, *second])
    observed = sum(distance(a, b) for a, b in zip(first, second, strict=True)) / n
    shares, others = Counter(first), Counter(second)
    expected = sum(p * q * distance(a, b) for a, p in shares.items() for b, q in others.items()) / n**2
    return 1.0 if expected == 0 else 1 - observed / expected


def quadratic_kappa(first: Sequence[float], second: Sequence[float]) -> float:
    """Kappa weighted by the square of the disagreement, for ordered categories such as score totals."""
    return cohen_kappa(first, second, "quadratic")


def half_away(value: float) -> int:
    """The nearest whole number, halves away from zero: 2.5 is 3. Score totals become categories this way."""
    _finite([value], "rounding")
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _distance(weights: Weights | None, values: Sequence[Any]) -> Callable[[Any, Any], float]:
    if weights is None:
        return lambda a, b: float(a != b)
    if weights not in ("linear", "quadratic"):
        raise ValueError(f"{weights!r} is no weighting of kappa; use linear, quadratic or None")
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError("weighted kappa needs numbers, whose distance is the weight; leave weights out for words")
    _finite(values, "weighted kappa")
    return (lambda a, b: float(abs(a - b))) if weights == "linear" else (lambda a, b: float((a - b) ** 2))


# -- what has no answer ----------------------------------------------------------------------------


def _finite(values: Sequence[float], what: str) -> None:
    wrong = next((value for value in values if not math.isfinite(value)), None)
    if wrong is not None:
        raise ValueError(f"{what} needs finite numbers, and one of the values is {wrong}; leave it out")


def _same_length(first: Sequence[object], second: Sequence[object], what: str) -> int:
    if len(first) != len(second):
        raise ValueError(f"{what} needs pairs, not {len(first)} and {len(second)} values")
    return len(first)
