"""The joint outlier test: closed forms, and p-values of simulated models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from detectors.outlier import (
    CovariancePrior,
    drawn,
    filled,
    one_sided,
    p_value,
    shifts,
    simulated,
)

COVARIANCE = np.array(
    [
        [0.04, 0.03, 0.01, 0.02],
        [0.03, 0.09, 0.02, 0.03],
        [0.01, 0.02, 0.05, 0.01],
        [0.02, 0.03, 0.01, 0.06],
    ]
)
PRIOR = CovariancePrior(COVARIANCE, weight=30.0, tails=15.0, evidence=3)


def test_one_value_counts_if_it_is_positive() -> None:
    y = np.array([[2.0], [-2.0]])
    assert one_sided(y, np.array([[4.0]])).tolist() == [1.0, 0.0]


def test_independent_values_add_up_where_they_are_positive() -> None:
    y = np.array([1.0, -5.0, 2.0])
    assert one_sided(y, np.eye(3)) == pytest.approx(5.0)


def test_the_maximum_is_that_of_nonnegative_least_squares() -> None:
    """y' V⁻¹ y - min |L (y - δ)|² with V⁻¹ = L' L."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = np.cov(rng.normal(size=(4, 30)))
        y = rng.normal(size=4)
        root = np.linalg.cholesky(np.linalg.inv(v)).T
        _, residual = nnls(root, root @ y)
        expected = y @ np.linalg.inv(v) @ y - residual**2
        assert one_sided(y, v) == pytest.approx(expected, abs=1e-9)


def test_the_class_that_is_shifted_is_found() -> None:
    x = drawn(1, 10, PRIOR, np.random.default_rng(1))[0]
    x[7, :3] += 1.0
    assert shifts(x, PRIOR).argmax() == 7


def test_a_shift_of_covariates_is_no_evidence() -> None:
    rng = np.random.default_rng(2)
    x = drawn(1, 10, PRIOR, rng)[0]
    shifted = x.copy()
    shifted[7, 3] += 3.0
    assert shifts(shifted, PRIOR)[7] < max(shifts(x, PRIOR)[7], 1.0)


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("away", [-5.0, 5.0])
def test_no_value_decides_alone(column: int, away: float) -> None:
    """Neither a class that one detector alone finds easy, nor one that it alone finds hard."""
    null = simulated(10, (0,) * 4, PRIOR)
    x = drawn(1, 10, PRIOR, np.random.default_rng(4))[0]
    before = p_value(float(shifts(x, PRIOR).max()), null)
    x[7, column] += away
    assert before > 0.1
    assert p_value(float(shifts(x, PRIOR)[7]), null) > 0.1


def test_what_two_detectors_say_decides() -> None:
    x = drawn(1, 10, PRIOR, np.random.default_rng(4))[0]
    x[7, :2] += 2.0
    null = simulated(10, (0,) * 4, PRIOR)
    assert p_value(float(shifts(x, PRIOR)[7]), null) < 0.001


def test_one_less_is_known_of_the_rest_as_before() -> None:
    """The mean of the prior stays what it is."""
    rest = PRIOR.without(1)
    kept = [0, 2, 3]
    assert rest.evidence == 2
    assert rest.weight == 29.0
    assert rest.covariance == pytest.approx(COVARIANCE[np.ix_(kept, kept)])
    assert rest.scale == pytest.approx(PRIOR.scale[np.ix_(kept, kept)])


def test_what_a_covariate_explains_is_no_evidence() -> None:
    """A class that is easy in the twin, too, is less suspicious for being easy."""
    x = 0.01 * np.random.default_rng(3).normal(size=(10, 3))
    covariance = np.array([[0.04, 0.02, 0.036], [0.02, 0.04, 0.036], [0.036, 0.036, 0.04]])
    prior = CovariancePrior(covariance + 0.01 * np.eye(3), 30.0, 15.0, evidence=2)
    x[4] += (0.6, 0.6, 0.6)
    alone = x.copy()
    alone[4, 2] = 0.0
    assert shifts(x, prior)[4] < shifts(alone, prior)[4] / 3


def test_only_the_likeliest_classes_may_be_worked_out() -> None:
    x = drawn(2000, 10, PRIOR, np.random.default_rng(4))
    some, every = shifts(x, PRIOR, most=5).max(-1), shifts(x, PRIOR).max(-1)
    assert (some <= every + 1e-9).all()
    large = every > np.quantile(every, 0.8)  # where p-values are small
    assert (some[large] >= every[large] - 1e-9).all()


@pytest.mark.parametrize(("classes", "unknown"), [(4, 0), (10, 0), (10, 3), (43, 10)])
def test_p_values_of_clean_models_are_uniform(classes: int, unknown: int) -> None:
    null = simulated(classes, (0, unknown, 0, 0), PRIOR)
    x = drawn(2000, classes, PRIOR, np.random.default_rng(5))
    x[..., 1] = filled(x[..., 1], unknown)
    p = np.array([p_value(value, null) for value in shifts(x, PRIOR).max(-1)])
    for level in (0.01, 0.05, 0.2, 0.5):
        deviation = np.sqrt(level * (1 - level) / len(p))
        assert abs((p <= level).mean() - level) < 4 * deviation + 0.002


def test_p_values_are_never_zero_and_count_ties() -> None:
    null = np.array([1.0, 2.0, 2.0, 3.0])
    assert p_value(9.0, null) == 1 / 5
    assert p_value(2.0, null) == 4 / 5
    assert p_value(0.0, null) == 1.0


def test_unknown_values_are_as_large_as_the_smallest_known_one() -> None:
    assert filled(np.array([4.0, 1.0, 3.0, 2.0]), 2).tolist() == [4.0, 3.0, 3.0, 3.0]
