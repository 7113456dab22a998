"""Gamma distributions: fitted, also to censored data, and their far upper tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

#: Newton steps of the censored fit, at most; how far one may change the logarithm of a parameter,
#: and how far the last one changes any.
_STEPS, _FARTHEST, _NEAREST = 20, 1.0, 1e-8
#: Share of the shape by which it is varied for derivatives with respect to it.
_VARIED = 1e-3
# Stands for a probability of 0, which has no logarithm: nothing lies below the bound then.
_TINY = 1e-300


@dataclass(frozen=True)
class SpreadPrior:
    """What is known of the spread of a clean model's statistics before any is seen.

    Nine null values say little about their own spread. Clean models are alike in it, so the fit
    adds ``weight`` pseudo-observations with the spread of ``shape``, as the moderated t-test does
    with variances (Smyth 2004, "Linear models and empirical Bayes methods for assessing
    differential expression in microarray experiments").

    Attributes:
        shape: typical Gamma shape of a clean model's statistics.
        weight: n₀, the number of pseudo-observations; log(shape) of clean models then varies with
            the standard deviation ``√(2 / n₀)``, which the calibration simulates.
        strays: share of clean models, of kinds that were not measured, whose largest statistic no
            such null describes. The calibration counts it in, so that no p-value is smaller.
    """

    shape: float
    weight: float
    strays: float = 0.0

    @property
    def spread(self) -> float:
        """log(mean) - mean(log) of the pseudo-observations."""
        return float(np.log(self.shape) - special.digamma(self.shape))


def fit_gamma(
    mean: Array,
    mean_log: Array,
    number: NDArray[np.int64] | None = None,
    prior: SpreadPrior | None = None,
) -> tuple[Array, Array]:
    """Maximum-likelihood shape k and scale θ of a Gamma with location 0, from its two statistics.

    Solves log k - ψ(k) = log(mean r) - mean(log r) by Newton's method from Minka's start. With a
    prior, the right side is averaged with the prior's, which counts as n₀ observations.

    Args:
        mean: mean of the data, any shape.
        mean_log: mean of the logarithms of the data, same shape.
        number: of the data, same shape; needed with a prior.
        prior: of the spread.
    """
    s = np.maximum(np.log(mean) - mean_log, 1e-12)
    if prior is not None and number is not None:
        s = (number * s + prior.weight * prior.spread) / (number + prior.weight)
    k = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    for _ in range(6):
        k = k - (np.log(k) - special.digamma(k) - s) / (1 / k - special.polygamma(1, k))
    return k, mean / k


def fit_censored_gamma(
    mean: Array,
    mean_log: Array,
    number: NDArray[np.int64],
    bound: Array,
    below: NDArray[np.int64],
    prior: SpreadPrior | None = None,
) -> tuple[Array, Array]:
    """The same for data of which some are known only to be smaller than a bound b.

    Maximises, in k and x = b/θ, with u = r/b for the n that are known and c that are not,

        (k - 1) Σ log u - x Σ u + n (k log x - log Γ(k)) + c log P(k, x)

    by Newton's method in log k and log x; P is the regularised lower incomplete Gamma function. A
    prior adds n₀ (k log k - k - log Γ(k) - k s₀): what n₀ observations with the spread s₀ say of
    the shape whatever their scale. It makes :func:`fit_gamma` average the spreads.

    Args:
        mean: mean of the data that are known, any shape.
        mean_log: mean of their logarithms, same shape.
        number: how many are known, n, same shape.
        bound: b > 0, same shape.
        below: how many are only known to be smaller than that, c, same shape.
        prior: of the spread.
    """
    sum_u, sum_log_u = number * mean / bound, number * (mean_log - np.log(bound))
    weight, spread = (prior.weight, prior.spread) if prior else (0.0, 0.0)
    total = number + below
    # Newton's method starts as if those that are not known were at the bound.
    at_bound = bound * (sum_u + below) / total, sum_log_u / total + np.log(bound)
    k, scale = fit_gamma(*at_bound, total, prior)
    x = bound / scale
    for _ in range(_STEPS):
        log_p, slope, curve = _log_below(k, x)
        digamma, trigamma = special.digamma(k), special.polygamma(1, k)
        hazard = x * np.exp((k - 1) * np.log(x) - x - special.gammaln(k) - log_p)
        rest = weight * (np.log(k) - digamma - spread)
        to_k = k * (sum_log_u + number * (np.log(x) - digamma) + below * slope + rest)
        to_x = number * k - x * sum_u + below * hazard
        by_k = k**2 * (weight / k - (number + weight) * trigamma + below * curve) + to_k
        by_x = below * hazard * (k - x - hazard) - x * sum_u
        mixed = k * (number + below * hazard * (np.log(x) - digamma - slope))
        steps = np.stack([mixed * to_x - by_x * to_k, mixed * to_k - by_k * to_x])
        steps = np.clip(steps / (by_k * by_x - mixed**2), -_FARTHEST, _FARTHEST)
        k, x = k * np.exp(steps[0]), x * np.exp(steps[1])
        if (np.abs(steps) < _NEAREST).all():
            break
    return k, bound / x


def _log_below(k: Array, x: Array) -> tuple[Array, Array, Array]:
    """log P(k, x) and its first and second derivative with respect to k."""
    h = _VARIED * k
    around = (special.gammainc(k + d, x) for d in (-h, 0, h))
    lower, middle, upper = (np.log(np.maximum(p, _TINY)) for p in around)
    return middle, (upper - lower) / (2 * h), (upper - 2 * middle + lower) / h**2


def log_plugin_p(r: Array, shape: Array, scale: Array, count: int, rank: int = 1) -> Array:
    """log of the probability that the j-th largest of K draws from a Gamma null G is at least r_j.

    That of the largest is log(1 - G(r_max)^K) (paper, Sec. 3.2). With q = 1 - G(r_j) at least j of
    K draws exceed r_j with the probability I_q(j, K - j + 1), the regularised incomplete beta
    function. Computed from the logarithm of q, so that it keeps its order far below the smallest
    float, where the paper reports "underflow".

    Args:
        r: the j-th largest of the data, any shape.
        shape, scale: of G, same shape.
        count: K.
        rank: j.
    """
    log_sf = log_gamma_sf(r / scale, shape)
    q = np.exp(np.minimum(log_sf, -1e-16))
    with np.errstate(divide="ignore"):
        if rank == 1:  # 1 - (1 - q)^K, with more digits than the beta function has
            exact = np.log(-np.expm1(count * np.log1p(-q)))
        else:
            exact = np.log(special.betainc(rank, count - rank + 1, q))
    # For tiny q that is the probability that a given j of them exceed it, times their number.
    tiny = rank * log_sf + np.log(special.comb(count, rank))
    return np.where(log_sf < -30, tiny, np.minimum(exact, 0.0))


def log_gamma_sf(x: Array, shape: Array) -> Array:
    """log of the regularised upper incomplete gamma function Q(shape, x), without underflow.

    Beyond x = shape + 100 * sqrt(shape) + 300 the first terms of the continued fraction (DLMF
    8.9.2) are exact to double precision.
    """
    x, shape = np.broadcast_arrays(np.asarray(x, float), np.asarray(shape, float))
    with np.errstate(divide="ignore"):
        direct = np.log(special.gammaincc(shape, x))
    fraction = np.zeros_like(x)
    for i in range(60, 0, -1):
        fraction = i * (shape - i) / (x + 2 * i + 1 - shape + fraction)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = shape * np.log(x) - x - special.gammaln(shape) - np.log(x + 1 - shape + fraction)
    return np.where(np.isfinite(direct) & (direct > -600), direct, tail)
