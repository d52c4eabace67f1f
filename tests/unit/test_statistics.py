"""Statistics against the published table, SciPy, and values worked out by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from scipy import stats

from soda_jobs import metrics
from soda_jobs.metrics.statistics import (
    cohen_kappa,
    gain_ratio,
    half_away,
    mcnemar,
    quadratic_kappa,
    relative_gain,
    wilcoxon,
)

PUBLISHED = json.loads((Path(metrics.__file__).parent / "published.json").read_text(encoding="utf-8"))
CELLS, AVERAGE = PUBLISHED["pass@1"], PUBLISHED["average"]
BASELINES = ["Evol-Instruct", "OSS-Instruct", "PERsD", "MFT"]


def test_published_averages_are_those_of_the_cells() -> None:
    for method, values in CELLS.items():
        assert len(values) == len(PUBLISHED["cells"]) == 8
        assert sum(values) / 8 == pytest.approx(AVERAGE[method], abs=0.07)


def test_gain_ratio_of_the_abstract() -> None:
    first = PUBLISHED["cells"].index("humaneval")
    soda, persd, base = (CELLS[name][first] for name in ("SODA", "PERsD", "Base"))
    assert gain_ratio(soda, persd, base) == pytest.approx(39.9, abs=0.05)
    average = gain_ratio(AVERAGE["SODA"], AVERAGE["PERsD"], AVERAGE["Base"])
    assert average == pytest.approx(29.8, abs=0.5)


def test_relative_gain_of_the_averages() -> None:
    assert relative_gain(AVERAGE["SODA"], AVERAGE["PERsD"]) == pytest.approx(10.1, abs=0.1)


@pytest.mark.parametrize("baseline", BASELINES)
def test_soda_differs_from_each_baseline_over_the_eight_cells(baseline: str) -> None:
    found = wilcoxon(CELLS["SODA"], CELLS[baseline])
    assert (found.statistic, found.n) == (0, 8)
    assert found.p == pytest.approx(0.0078, abs=0.00005)


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


def test_wilcoxon_with_ties_counts_every_sign_pattern() -> None:
    # Ranks 1.5, 1.5, 3, all positive: of 8 sign patterns 2 are as far out.
    assert wilcoxon([1, 1, 2], [0, 0, 0]).p == 2 / 8


def test_wilcoxon_of_equal_values_finds_nothing() -> None:
    assert wilcoxon([1, 2], [1, 2]).p == 1
    assert wilcoxon([0.3], [0.1 + 0.2]).n == 0


def test_mcnemar_is_the_sign_test_of_the_disagreements() -> None:
    first = [True] * 9 + [False] * 2 + [True] * 50
    second = [False] * 9 + [True] * 2 + [True] * 50
    found = mcnemar(first, second)
    assert (found.statistic, found.n) == (2, 11)
    assert found.p == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_kappa_by_hand() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = 0.7, p_e = 0.5.
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_kappa_of_judges_who_know_one_word() -> None:
    assert cohen_kappa([1, 1], [1, 1]) == 1
    assert quadratic_kappa([1, 1], [1, 1]) == 1


def test_quadratic_kappa_punishes_far_misses_more() -> None:
    truth = [0, 1, 2, 3, 4, 5, 6]
    near, far = [1, 2, 3, 4, 5, 6, 5], [6, 1, 2, 3, 4, 5, 0]
    assert quadratic_kappa(truth, truth) == 1
    assert quadratic_kappa(truth, near) > quadratic_kappa(truth, far)
    # Two categories: the same as without weights.
    first, second = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    assert quadratic_kappa(first, second) == pytest.approx(cohen_kappa(first, second))


def test_kappa_without_pairs_is_refused() -> None:
    for kappa in (cohen_kappa, quadratic_kappa):
        with pytest.raises(ValueError, match="pairs"):
            kappa([], [])
        with pytest.raises(ValueError, match="pairs"):
            kappa([1], [1, 2])


def test_halves_round_away_from_zero() -> None:
    assert [half_away(value) for value in (0.5, 1.5, 2.5, 2.4, -0.5)] == [1, 2, 3, 2, -1]
