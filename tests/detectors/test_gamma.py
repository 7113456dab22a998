"""Gamma distributions: fits against a general optimiser, tails against series."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from detectors.gamma import (
    SpreadPrior,
    fit_censored_gamma,
    fit_gamma,
    log_gamma_sf,
    log_plugin_p,
)


def test_fit_is_the_maximum_likelihood_fit() -> None:
    r = np.random.default_rng(0).gamma(4.0, 0.3, size=60)
    shape, scale = fit_gamma(r.mean(), np.log(r).mean())
    expected_shape, _, expected_scale = stats.gamma.fit(r, floc=0)
    assert shape == pytest.approx(expected_shape, rel=1e-4)
    assert scale == pytest.approx(expected_scale, rel=1e-4)


def statistics(r: np.ndarray) -> tuple[float, float, int]:
    """What the fits are given of the data."""
    return r.mean(), np.log(r).mean(), len(r)


@pytest.mark.parametrize("prior", [None, SpreadPrior(20.0, 10.0)])
@pytest.mark.parametrize(("shape", "below"), [(1.5, 30), (5.0, 20), (5.0, 3), (40.0, 35)])
def test_censored_fit_is_the_maximum_of_the_likelihood(
    shape: float, below: int, prior: SpreadPrior | None
) -> None:
    r = np.sort(np.random.default_rng(below).gamma(shape, 0.1, size=43))
    bound, known = r[below] / 1.1, r[below:-1]

    def minus_log_likelihood(logs: np.ndarray) -> float:
        k, scale = np.exp(logs)
        null = stats.gamma(k, scale=scale)
        value = null.logpdf(known).sum() + below * null.logcdf(bound)
        if prior is not None:
            # n₀ observations, each at its most likely scale
            gain = k * np.log(k) - k - special.gammaln(k) - k * prior.spread
            value += prior.weight * gain
        return -float(value)

    start = np.log([shape, 0.1])
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    best = optimize.minimize(minus_log_likelihood, start, method="Nelder-Mead", options=options)
    found = fit_censored_gamma(*statistics(known), bound, below, prior)
    assert np.log(found) == pytest.approx(best.x, abs=1e-4)


@pytest.mark.parametrize("prior", [None, SpreadPrior(8.0, 10.0)])
@pytest.mark.parametrize("bound", [1e-3, 1.0])
def test_without_censored_data_the_fits_agree(prior: SpreadPrior | None, bound: float) -> None:
    """Also where the bound lies so low that nothing is ever expected below it."""
    r = np.random.default_rng(1).gamma(30.0, 0.1, size=(7, 20))
    mean, mean_log, number = r.mean(1), np.log(r).mean(1), np.full(7, 20)
    expected = fit_gamma(mean, mean_log, number, prior)
    found = fit_censored_gamma(
        mean, mean_log, number, np.full(7, bound), np.zeros(7, dtype=int), prior
    )
    assert np.allclose(found, expected, rtol=1e-9)


def test_censored_data_teach_what_they_can() -> None:
    """Of 20,000 draws only the largest twentieth is known."""
    r = np.random.default_rng(2).gamma(6.0, 0.5, size=20_000)
    bound = np.quantile(r, 0.95)
    known = r[r > bound]
    shape, scale = fit_censored_gamma(*statistics(known), bound, len(r) - len(known))
    assert shape == pytest.approx(6.0, rel=0.1)
    assert shape * scale == pytest.approx(3.0, rel=0.1)


def test_log_survival_does_not_underflow() -> None:
    # log Q(5, 2000) = 4 log 2000 - 2000 - log 4! + log(1 + 4/x + 12/x² + 24/x³ + 24/x⁴)
    x = 2000.0
    series = 1 + 4 / x + 12 / x**2 + 24 / x**3 + 24 / x**4
    exact = 4 * math.log(x) - x - math.log(24) + math.log(series)
    assert float(log_gamma_sf(np.array(x), np.array(5.0))) == pytest.approx(exact, rel=1e-12)


def test_log_survival_is_continuous_where_the_method_changes() -> None:
    x = np.linspace(500, 800, 3001)
    values = log_gamma_sf(x, np.full_like(x, 7.5))
    steps = np.diff(values)
    assert (steps < 0).all()
    assert np.abs(np.diff(steps)).max() < 1e-6


def test_log_plugin_p_is_ordered_far_below_underflow() -> None:
    shape, scale = np.array([5.0]), np.array([1.0])
    values = [float(log_plugin_p(np.array([x]), shape, scale, 10)[0]) for x in (10, 1e3, 1e4, 1e5)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < -9e4
