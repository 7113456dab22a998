"""The order-statistic test of L-RED and its calibration.

Section 3.2 of the L-RED paper: one detection statistic r_t per putative target class, a Gamma null
fitted to all of them but the largest, and the p-value of the largest under it. That *plug-in*
p-value is too small: the null is fitted without the maximum, so it never sees its own upper tail.
With K = 10 independent Gamma draws and no attack, "p < 0.05" is true in 25 % of the cases.

The null distribution of the plug-in p-value depends on the number of statistics and hardly on the
Gamma's shape (:mod:`detectors.calibration` holds it as a Monte-Carlo table), so it can be turned
into a *calibrated* p-value, uniform when nothing is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from detectors.calibration import null_table

Array = NDArray[np.float64]

#: Fewer statistics than this leave nothing to fit a two-parameter null to.
MIN_STATISTICS = 4


@dataclass(frozen=True)
class OrderStatisticTest:
    """Result of the test on one set of statistics.

    Attributes:
        index: position of the largest statistic; ``None`` when there is no test.
        log_p_plugin: natural logarithm of the paper's p-value; may be far below the smallest float.
        p_plugin: the paper's p-value, ``exp(log_p_plugin)``.
        p_calibrated: the calibrated p-value in (0, 1].
        shape, scale: the fitted Gamma null (location 0).
        reason: why there is no test; empty when there is one.
    """

    index: int | None
    log_p_plugin: float | None = None
    p_plugin: float | None = None
    p_calibrated: float | None = None
    shape: float | None = None
    scale: float | None = None
    reason: str = ""


def order_statistic_test(r: Array, groups: NDArray[np.int64] | None = None) -> OrderStatisticTest:
    """Test whether the largest of the statistics is larger than chance allows (paper, Sec. 3.2).

    Args:
        r: detection statistics ``[n]``, positive, larger = more suspicious. ``0`` stands for "no
            pattern found" (an infinite size): such statistics are the smallest, whatever their
            value, so they count in n but not in the fit, and the calibration leaves out as many.
        groups: ``[n]``: the target class of each statistic, when there are several per class (all
            class pairs). The null is fitted without the whole group of the largest one.

    Returns:
        The test, or a reason why there is none: too few statistics, NaN or infinite values, ties
        for the largest, or no spread.
    """
    r = np.asarray(r, dtype=np.float64)
    if not np.isfinite(r).all() or (r < 0).any():
        return OrderStatisticTest(None, reason="some statistics are not finite")
    groups = np.arange(len(r)) if groups is None else np.asarray(groups)
    found = r > 0
    classes = len(np.unique(groups[found]))
    if classes < MIN_STATISTICS:
        reason = f"{classes} classes with a pattern are too few; the test needs {MIN_STATISTICS}"
        return OrderStatisticTest(None, reason=reason)
    index = int(r.argmax())
    same = groups == groups[index]
    rest = r[~same & found]
    if (rest == r[index]).any():
        return OrderStatisticTest(None, reason="several classes tie for the smallest pattern")
    if np.ptp(rest) <= 1e-9 * rest.max():
        return OrderStatisticTest(None, reason="the statistics have no spread")
    shape, scale = fit_gamma(rest.mean(keepdims=True), np.log(rest).mean(keepdims=True))
    log_p = float(log_plugin_p(r[index : index + 1], shape, scale, len(r))[0])
    null = null_table(len(r), int(same.sum()), int((~found).sum()))
    return OrderStatisticTest(
        index=index,
        log_p_plugin=log_p,
        p_plugin=float(np.exp(log_p)),
        p_calibrated=null.calibrate(log_p),
        shape=float(shape[0]),
        scale=float(scale[0]),
    )


def fit_gamma(mean: Array, mean_log: Array) -> tuple[Array, Array]:
    """Maximum-likelihood shape k and scale θ of a Gamma with location 0, from its two statistics.

    Solves log k - ψ(k) = log(mean r) - mean(log r) by Newton's method from Minka's start.

    Args:
        mean: mean of the data, any shape.
        mean_log: mean of the logarithms of the data, same shape.
    """
    s = np.maximum(np.log(mean) - mean_log, 1e-12)
    k = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    for _ in range(6):
        k = k - (np.log(k) - special.digamma(k) - s) / (1 / k - special.polygamma(1, k))
    return k, mean / k


def log_plugin_p(r_max: Array, shape: Array, scale: Array, count: int) -> Array:
    """log(1 - G(r_max)^K) for a Gamma null G and K = ``count`` (paper, Sec. 3.2).

    Computed from the logarithm of the survival function, so that it keeps its order far below the
    smallest float, where the paper reports "underflow".
    """
    log_sf = log_gamma_sf(r_max / scale, shape)
    # 1 - (1 - q)^K = -expm1(K log1p(-q)); for tiny q that is K q.
    q = np.exp(np.minimum(log_sf, -1e-16))
    with np.errstate(divide="ignore"):
        exact = np.log(-np.expm1(count * np.log1p(-q)))
    return np.where(log_sf < -30, log_sf + np.log(count), np.minimum(exact, 0.0))


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
