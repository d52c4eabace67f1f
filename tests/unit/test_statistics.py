"""Statistics against the published table, SciPy, and values worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.metrics.published import load
from soda_jobs.metrics.statistics import (
    cohen_kappa,
    compare_pairs,
    gain_ratio,
    half_away,
    holm,
    mcnemar,
    quadratic_kappa,
    relative_gain,
    wilcoxon,
)

TABLE = load("soda-1")
BASELINES = ["Evol-Instruct", "OSS-Instruct", "PERsD", "MFT"]
NAN = float("nan")


def cells(row: str) -> list[float]:
    return list(TABLE.values(row, "pass@1").values())


@pytest.mark.parametrize("baseline", BASELINES)
def test_soda_differs_from_each_baseline_over_the_eight_cells(baseline: str) -> None:
    found = wilcoxon(cells("SODA"), cells(baseline))
    assert (found.statistic, found.n) == (0, 8)
    assert found.p == pytest.approx(2 / 2**8)


def test_gains_by_hand() -> None:
    assert relative_gain(60, 40) == 50
    assert relative_gain(30, 40) == -25
    # 50 % and 25 % over the base: twice the gain, though the value itself is only 20 % larger.
    assert gain_ratio(60, 50, 40) == pytest.approx(100)
    assert relative_gain(60, 50) == pytest.approx(20)
    # The base cancels: only the differences count.
    assert gain_ratio(65.2, 56.7, 35.4) == pytest.approx(100 * ((65.2 - 35.4) / (56.7 - 35.4) - 1))


def test_gains_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="over a base of 0 is not defined"):
        relative_gain(1, 0)
    with pytest.raises(ValueError, match="gained nothing"):
        gain_ratio(60, 40, 40)
    for call in (lambda: relative_gain(NAN, 1), lambda: gain_ratio(1, 2, math.inf)):
        with pytest.raises(ValueError, match="needs finite numbers"):
            call()


@pytest.mark.parametrize("n", [5, 12, 25])
def test_wilcoxon_is_scipys_exact_test(n: int) -> None:
    rng = random.Random(n)
    first, second = [rng.random() for _ in range(n)], [rng.random() - 0.2 for _ in range(n)]
    expected = stats.wilcoxon(first, second, method="exact")
    found = wilcoxon(first, second)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_wilcoxon_with_many_ties_is_scipys_normal_test() -> None:
    rng = random.Random(3)
    first, second = [rng.randrange(5) for _ in range(200)], [rng.randrange(4) for _ in range(200)]
    expected = stats.wilcoxon(first, second, zero_method="wilcox", correction=True, method="asymptotic")
    found = wilcoxon(first, second)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_wilcoxon_by_hand() -> None:
    # Ranks 1 to 5, only the second negative: W = 2. Sums up to 2 come from {}, {1} and {2}: 3 of 32, twice.
    found = wilcoxon([1, 0, 3, 4, 5], [0, 2, 0, 0, 0])
    assert (found.statistic, found.n, found.p) == (2, 5, 6 / 32)
    # Ranks 1.5, 1.5, 3, all positive: of 8 sign patterns 2 are as far out.
    assert wilcoxon([1, 1, 2], [0, 0, 0]).p == 2 / 8


@pytest.mark.parametrize("seed", range(8))
def test_wilcoxon_with_ties_counts_every_sign_pattern(seed: int) -> None:
    rng = random.Random(seed)
    differences = [rng.choice([-3, -2, -1, 1, 2, 3, 4]) for _ in range(rng.randrange(2, 11))]
    ranks = stats.rankdata(np.abs(differences))
    half = ranks.sum() / 2
    away = abs(ranks[np.array(differences) > 0].sum() - half)
    patterns = list(product([0, 1], repeat=len(ranks)))
    far = sum(abs(np.dot(pattern, ranks) - half) >= away - 1e-9 for pattern in patterns)
    assert wilcoxon(differences, [0] * len(ranks)).p == pytest.approx(far / len(patterns))


def test_wilcoxon_at_the_edges() -> None:
    assert wilcoxon([1, 2], [1, 2]).p == 1
    assert wilcoxon([0.3], [0.1 + 0.2]).n == 0  # equal but for the last bit
    assert (wilcoxon([2], [1]).p, wilcoxon([2], [1]).n) == (1, 1)
    assert wilcoxon([], []).p == 1
    assert wilcoxon([1] * 30, [1] * 30).p == 1
    assert wilcoxon([2] * 30, [1] * 30).p < 1e-6  # all tied: only their sign counts
    with pytest.raises(ValueError, match="one of the values is nan"):
        wilcoxon([1, NAN], [1, 2])
    with pytest.raises(ValueError, match="not 1 and 2 values"):
        wilcoxon([1], [1, 2])


def test_mcnemar_is_the_sign_test_of_the_disagreements() -> None:
    first = [True] * 9 + [False] * 2 + [True] * 50
    second = [False] * 9 + [True] * 2 + [True] * 50
    found = mcnemar(first, second)
    assert (found.statistic, found.n) == (2, 11)
    assert found.p == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_mcnemar_by_hand() -> None:
    # 5 to 0: the one-sided chance is 1 in 32.
    assert mcnemar([True] * 5, [False] * 5).p == 2 / 32
    assert mcnemar([True, False, True], [True, False, True]) == mcnemar([True], [True])
    assert mcnemar([True], [True]).p == 1
    assert (mcnemar([True], [False]).p, mcnemar([True], [False]).n) == (1, 1)


def test_mcnemar_of_many_pairs_is_close_to_its_chi_square_form() -> None:
    ahead, behind = 330, 270
    found = mcnemar([True] * ahead + [False] * behind, [False] * ahead + [True] * behind)
    corrected = (abs(ahead - behind) - 1) ** 2 / (ahead + behind)  # Edwards 1948
    assert found.p == pytest.approx(float(stats.chi2.sf(corrected, df=1)), rel=0.02)


def test_mcnemar_does_not_take_scores() -> None:
    for wrong in ([0.5, 1], [NAN, 1]):
        with pytest.raises(ValueError, match="true or false"):
            mcnemar(wrong, [True, False])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs"):
        mcnemar([True], [])


def test_scores_of_tasks_choose_their_test() -> None:
    assert compare_pairs([1.0, 0.0], [0, 1]).name == "McNemar, exact"
    assert compare_pairs([0.5, 0.0], [0, 1]).name == "Wilcoxon, exact"
    assert compare_pairs([n / 100 for n in range(1, 51)], [0] * 50).name == "Wilcoxon, normal"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    for wrong in ([NAN], [1.1], [-0.1]):
        with pytest.raises(ValueError, match="p-values from 0 to 1"):
            holm([0.5, *wrong])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_stepping_down_rejects(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.random() ** 4 for _ in range(12)]
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for left, index in zip(range(12, 0, -1), np.argsort(values), strict=True):
            if values[index] > alpha / left:
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(holm(values)) if p <= alpha} == rejected


def test_interval_of_four_tasks_by_hand() -> None:
    # Of four tasks one solved: resamples solve Binomial(4, 1/4) of them; 2.5 % lies at 0, 97.5 % at 3.
    assert confidence_interval([[1.0, 0.0, 0.0, 0.0]], samples=20_000, seed=0) == (0, 0.75)


def test_interval_is_close_to_scipys() -> None:
    rng = random.Random(5)
    values = [rng.random() ** 2 for _ in range(60)]
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1)
    ).confidence_interval
    assert confidence_interval([values], samples=9999, seed=0) == pytest.approx(tuple(expected), abs=0.005)


def test_interval_of_one_task_has_no_width_and_nan_is_refused() -> None:
    assert confidence_interval([[0.5]], samples=100, seed=0) == (0.5, 0.5)
    with pytest.raises(ValueError, match="finite numbers"):
        confidence_interval([[0.5, NAN]], samples=100, seed=0)
    with pytest.raises(ValueError, match="give no interval"):
        confidence_interval([[0.5]], samples=0, seed=0)


def test_kappa_by_hand() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = 0.7, p_e = 0.5.
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_weighted_kappa_by_hand() -> None:
    first, second = [1, 1, 2, 2, 3, 3], [1, 2, 2, 3, 3, 2]
    assert cohen_kappa(first, second) == pytest.approx(0.25)  # p_o = 1/2, p_e = 12/36
    assert cohen_kappa(first, second, "linear") == pytest.approx(0.4)  # 1 - (18/36) / (30/36)
    assert cohen_kappa(first, second, "quadratic") == pytest.approx(4 / 7)  # 1 - (18/36) / (42/36)


def kappa_of_matrices(first: Sequence[int], second: Sequence[int], power: int | None) -> float:
    """Kappa as textbooks draw it: a table of counts, one of chance, one of weights."""
    size = max(*first, *second) + 1
    seen = np.zeros((size, size))
    for a, b in zip(first, second, strict=True):
        seen[a, b] += 1
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()
    rows, columns = np.indices((size, size))
    weights = (rows != columns).astype(float) if power is None else np.abs(rows - columns) ** power
    return 1 - float((weights * seen).sum() / (weights * chance).sum())


@pytest.mark.parametrize(("weights", "power"), [(None, None), ("linear", 1), ("quadratic", 2)])
def test_kappa_is_that_of_the_matrices(weights: Literal["linear", "quadratic"] | None, power: int | None) -> None:
    rng = random.Random(7)
    for _ in range(20):
        first = [rng.randrange(7) for _ in range(30)]
        second = [value if rng.random() < 0.6 else rng.randrange(7) for value in first]
        assert cohen_kappa(first, second, weights) == pytest.approx(kappa_of_matrices(first, second, power))


def test_kappa_of_judges_who_know_one_word() -> None:
    for weights in (None, "linear", "quadratic"):
        assert cohen_kappa([1, 1], [1, 1], weights) == 1  # type: ignore[arg-type]
        assert cohen_kappa([1], [1], weights) == 1  # type: ignore[arg-type]
        assert cohen_kappa([1], [2], weights) == 0  # type: ignore[arg-type]
        assert cohen_kappa([3, 3, 3], [1, 2, 3], weights) == 0  # type: ignore[arg-type]


def test_quadratic_kappa_punishes_far_misses_more() -> None:
    truth = [0, 1, 2, 3, 4, 5, 6]
    near, far = [1, 2, 3, 4, 5, 6, 5], [6, 1, 2, 3, 4, 5, 0]
    assert quadratic_kappa(truth, truth) == 1
    assert quadratic_kappa(truth, near) > quadratic_kappa(truth, far)
    # Two categories: the same as without weights.
    first, second = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    assert quadratic_kappa(first, second) == pytest.approx(cohen_kappa(first, second))


def test_kappa_of_what_has_no_answer_is_refused() -> None:
    for kappa in (cohen_kappa, quadratic_kappa):
        with pytest.raises(ValueError, match="at least one pair"):
            kappa([], [])
        with pytest.raises(ValueError, match="not 1 and 2 values"):
            kappa([1], [1, 2])
        with pytest.raises(ValueError, match="NaN"):
            kappa([1.0, NAN], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs numbers"):
        cohen_kappa(["easy"], ["hard"], "linear")
    with pytest.raises(ValueError, match="no weighting of kappa"):
        cohen_kappa([1], [2], "cubic")  # type: ignore[arg-type]


def test_halves_round_away_from_zero() -> None:
    assert [half_away(value) for value in (0.5, 1.5, 2.5, 2.4, -0.5)] == [1, 2, 3, 2, -1]
    with pytest.raises(ValueError, match="finite"):
        half_away(NAN)
