"""Is one class an outlier in what several detectors say of it together?

Every class t has a vector x_t of d values: e of *evidence*, the logarithms of its detection
statistics, which an attack makes larger, and d - e *covariates*, which it leaves as they are. In a
clean model the vectors are alike,

    x_t = μ + z_t,   z_t of a multivariate t distribution with covariance Σ,

and detectors agree on which classes are easy. An attack adds δ >= 0 to the evidence of its target.
The statistic of class t is that of the one-sided likelihood-ratio test of δ = 0 (Kudô, "A
multivariate analogue of the one-sided test", Biometrika 1963), given the covariates and with Σ
estimated from the other classes:

    T_t = max over δ >= 0 of  y' V⁻¹ y - (y - δ)' V⁻¹ (y - δ),

where y is the evidence of t less what the others' mean and t's covariates lead to expect, and V the
covariance of y. No detector shall decide alone, neither by a class that it alone finds easy nor by
one that it alone finds so hard that the others' values surprise: the statistic is the smallest of
those without one of the evidence.

Few classes say little about Σ, so its estimate is the posterior mean under an inverse Wishart
prior, as a moderated t-test does it for variances. The p-value of the largest statistic is
simulated under the same model, Σ drawn from the prior.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from detectors.gamma import Array

#: Simulated models behind a p-value: for up to 100 classes, and for more.
_DRAWS, _DRAWS_OF_MANY = 40_000, 20_000
#: Covariates farther from their median than so many standard deviations count as that far.
_FARTHEST = 3.0
#: Of a simulated model the statistic of so many classes is worked out, those whose two-sided one
#: is largest.
_LIKELIEST = 5
_SEED = 20210


@dataclass(frozen=True)
class CovariancePrior:
    """What is known of Σ before a model is seen.

    Attributes:
        covariance: its mean ``[d, d]``, evidence before covariates.
        weight: degrees of freedom ν of the inverse Wishart distribution, larger than d + 1.
        tails: degrees of freedom of the z_t.
        evidence: how many of the d values are evidence.
    """

    covariance: Array
    weight: float
    tails: float
    evidence: int

    @property
    def scale(self) -> Array:
        """Ψ of the inverse Wishart distribution, whose mean is Ψ / (ν - d - 1)."""
        return self.covariance * (self.weight - len(self.covariance) - 1)

    def without(self, place: int) -> CovariancePrior:
        """Of all values but one of the evidence; the marginal of an inverse Wishart distribution is
        one, too, with one degree of freedom less."""
        rest = np.delete(np.delete(self.covariance, place, 0), place, 1)
        return CovariancePrior(rest, self.weight - 1, self.tails, self.evidence - 1)


def shifts(x: Array, prior: CovariancePrior, most: int | None = None) -> Array:
    """The statistic of every class: the smallest T_t of those without one of the evidence.

    Args:
        x: ``[..., K, d]``, with two values of evidence or more.
        most: work it out only for so many classes; the others get 0.
    """
    x = _bounded(x, prior)
    parts = [
        _deviations(np.delete(x, place, -1), prior.without(place))
        for place in range(prior.evidence)
    ]
    if most is None or most >= x.shape[-2]:
        return reduce(np.minimum, map(_leave_one_out, parts))
    distance = reduce(np.minimum, map(_distances, parts))
    likeliest = np.argpartition(distance, -most, axis=-1)[..., -most:]
    result = np.zeros(distance.shape)
    values = reduce(np.minimum, (_leave_one_out(part.of(likeliest)) for part in parts))
    np.put_along_axis(result, likeliest, values, -1)
    return result


def _bounded(x: Array, prior: CovariancePrior) -> Array:
    """The values with covariates that are not too far away, so that none of them decides alone."""
    covariates = x[..., prior.evidence :]
    middle = np.median(covariates, axis=-2, keepdims=True)
    farthest = _FARTHEST * np.sqrt(np.diag(prior.covariance))[prior.evidence :]
    bounded = np.clip(covariates, middle - farthest, middle + farthest)
    return np.concatenate([x[..., : prior.evidence], bounded], -1)


@dataclass(frozen=True)
class _Deviations:
    """Classes against the mean of all.

    Attributes:
        centred: their deviations ``[..., k, d]``.
        total: the estimate of Σ with all classes in it ``[..., d, d]``.
        freedom: its degrees of freedom.
        classes: K.
        evidence: how many of the d values are evidence.
    """

    centred: Array
    total: Array
    freedom: float
    classes: int
    evidence: int

    def of(self, chosen: NDArray[np.int64]) -> _Deviations:
        """Those of some classes ``[..., k]``."""
        return replace(self, centred=np.take_along_axis(self.centred, chosen[..., None], -2))


def _deviations(x: Array, prior: CovariancePrior) -> _Deviations:
    classes, d = x.shape[-2:]
    freedom = prior.weight + classes - 2 - d - 1
    centred = x - x.mean(-2, keepdims=True)
    total = (prior.scale + np.einsum("...ki,...kj->...ij", centred, centred)) / freedom
    return _Deviations(centred, total, freedom, classes, prior.evidence)


def _distances(part: _Deviations) -> Array:
    """Squared Mahalanobis distances ``[..., k]``, 0 where no evidence is above the mean."""
    centred = part.centred
    inverse = np.linalg.inv(part.total)
    distance = np.einsum("...ki,...ij,...kj->...k", centred, inverse, centred)
    return np.asarray(distance * (centred[..., : part.evidence] > 0).any(-1))


def _leave_one_out(part: _Deviations) -> Array:
    """``T_t`` of the classes ``[..., k]``."""
    centred, rest = part.centred, part.classes / (part.classes - 1)
    # x_t less the mean of the others is so much of the deviation
    own = np.einsum("...i,...j->...ij", centred, centred) * rest / part.freedom
    sigma = (part.total[..., None, :, :] - own) * rest
    y, v = _given_covariates(centred * rest, sigma, part.evidence)
    return one_sided(y, v)


def _given_covariates(y: Array, sigma: Array, evidence: int) -> tuple[Array, Array]:
    """Evidence ``[..., e]`` less what the covariates lead to expect, and its covariance."""
    if y.shape[-1] == evidence:
        return y, sigma
    cross = sigma[..., evidence:, :evidence]
    slopes = np.linalg.solve(sigma[..., evidence:, evidence:], cross)
    expected = np.einsum("...ij,...i->...j", slopes, y[..., evidence:])
    explained = np.einsum("...ij,...ik->...jk", cross, slopes)
    return y[..., :evidence] - expected, sigma[..., :evidence, :evidence] - explained


def one_sided(y: Array, v: Array) -> Array:
    """``max over δ >= 0 of  y' V⁻¹ y - (y - δ)' V⁻¹ (y - δ)``.

    The maximum is one of those over the δ that are zero but for some components A, without a bound
    on these; such a one counts if it is not negative.

    Args:
        y: ``[..., e]``.
        v: ``[..., e, e]``, positive definite.
    """
    e = y.shape[-1]
    precision = np.linalg.inv(v)
    gradient = np.einsum("...ij,...j->...i", precision, y)
    best = np.zeros(y.shape[:-1])
    for number in range(1, e + 1):
        for free in map(list, itertools.combinations(range(e), number)):
            part = gradient[..., free]
            delta = np.linalg.solve(precision[..., free, :][..., free], part[..., None])[..., 0]
            value = np.where((delta >= 0).all(-1), (part * delta).sum(-1), 0.0)
            best = np.maximum(best, value)
    return best


def simulated(classes: int, unknown: Sequence[int], prior: CovariancePrior) -> Array:
    """The largest T_t of clean models, increasing.

    Args:
        classes: K.
        unknown: of each of the d values, of how many classes it is known only to be smaller than
            the others; see :func:`filled`.
    """
    rng = np.random.default_rng(_SEED)
    draws = _DRAWS if classes <= 100 else _DRAWS_OF_MANY
    at_once = max(1, 400_000 // classes)
    largest = []
    for start in range(0, draws, at_once):
        number = min(at_once, draws - start)
        x = drawn(number, classes, prior, rng)
        for column, count in enumerate(unknown):
            x[..., column] = filled(x[..., column], count)
        largest.append(shifts(x, prior, _LIKELIEST).max(-1))
    return np.sort(np.concatenate(largest))


def filled(values: Array, unknown: int) -> Array:
    """``[..., K]`` with the so many smallest ones replaced by the smallest of the others."""
    if not unknown:
        return values
    return np.maximum(values, np.sort(values, -1)[..., unknown : unknown + 1])


def p_value(largest: float, null: Array) -> float:
    """Share of the null ``[n]`` at least as large, the value itself counted with them."""
    above = len(null) - int(np.searchsorted(null, largest))
    return (1 + above) / (1 + len(null))


def drawn(number: int, classes: int, prior: CovariancePrior, rng: np.random.Generator) -> Array:
    """Values of clean models ``[number, classes, d]``, with a mean of 0."""
    d = len(prior.covariance)
    factors = np.linalg.cholesky(_covariances(number, prior, rng))
    normal = rng.normal(size=(number, classes, d)) @ factors.swapaxes(-1, -2)
    freedom = prior.tails
    return normal * np.sqrt((freedom - 2) / rng.chisquare(freedom, size=(number, classes, 1)))


def _covariances(number: int, prior: CovariancePrior, rng: np.random.Generator) -> Array:
    """Draws of the inverse Wishart distribution ``[number, d, d]`` (Bartlett's decomposition)."""
    d = len(prior.covariance)
    lower = np.zeros((number, d, d))
    for i in range(d):
        lower[:, i, i] = np.sqrt(rng.chisquare(prior.weight - i, number))
        lower[:, i, :i] = rng.normal(size=(number, i))
    root = np.linalg.cholesky(np.linalg.inv(prior.scale)) @ lower
    return np.asarray(np.linalg.inv(root @ root.swapaxes(-1, -2)), dtype=np.float64)
