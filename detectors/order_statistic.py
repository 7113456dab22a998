"""The order-statistic test of L-RED and its calibration.

Section 3.2 of the L-RED paper: one detection statistic r_t per putative target class, a Gamma null
fitted to all of them but the largest, and the p-value of the largest under it. That *plug-in*
p-value is too small: the null is fitted without the maximum, so it never sees its own upper tail.
With K = 10 independent Gamma draws and no attack, "p < 0.05" is true in 25 % of the cases.

The null distribution of the plug-in p-value depends on the number of statistics and hardly on the
Gamma's shape (:mod:`detectors.calibration` holds it as a Monte-Carlo table), so it can be turned
into a *calibrated* p-value, uniform when nothing is hidden.

A model with several backdoors has several large statistics, and each hides the others in a null
that is fitted to all but one. The paper leaves that case aside. Here the j-th largest is tested as
well, for every j up to half of them and at most :data:`MOST_TARGETS`, under a null that is fitted
to all but the j largest; the calibration does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.calibration import NullTable, null_table
from detectors.gamma import Array, SpreadPrior, fit_censored_gamma, fit_gamma, log_plugin_p
from detectors.race import Race

#: Fewer statistics than this leave nothing to fit a two-parameter null to.
MIN_STATISTICS = 4
#: With a prior of the null's spread so few will do.
MIN_KNOWN_WITH_PRIOR = 2
#: So many targets are told apart from the rest at most, and never more than half of all.
MOST_TARGETS = 5
#: Of fewer classes too little is known to look for several targets.
FEWEST_FOR_SEVERAL = 6
#: Of several targets none has a statistic smaller than the largest divided by this: one that is so
#: much smaller cannot hide it, and is rather a class that is easy in any model.
FARTHEST_APART = 4.0
#: Share of the error rate that the test for one target uses; the tests for several share the rest.
#: Backdoors that hide one another stand out far once they are left out, and need no more.
SHARE_OF_ONE = 0.9


@dataclass(frozen=True)
class FittedNull:
    """A null that was fitted to all statistics but the j largest, to test the j-th.

    Attributes:
        shape, scale: of the Gamma (location 0).
        count: number of statistics that the test is of.
        rank: j.
        table: the null of the plug-in p-value that calibrates this one.
    """

    shape: float
    scale: float
    count: int
    rank: int
    table: NullTable

    def p(self, r: float) -> float:
        """The calibrated p-value of the j-th largest statistic."""
        return self.table.calibrate(_log_p(r, self.shape, self.scale, self.count, self.rank))

    def critical(self, level: float) -> float | None:
        """The smallest j-th largest statistic with a calibrated p-value of at most ``level``.

        ``None`` when none is large enough.

        Args:
            level: in (0, 1).
        """
        if level <= self.table.strays:
            return None
        low = high = self.shape * self.scale
        while self.p(high) > level:
            low, high = high, 2 * high
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.p(middle) > level else (low, middle)
        return high


@dataclass(frozen=True)
class OrderStatisticTest:
    """Result of the test on one set of statistics.

    Attributes:
        index: position of the largest statistic; ``None`` when there is no test.
        log_p_plugin: natural logarithm of the paper's p-value; may be far below the smallest float.
            ``None`` where too few statistics are known exactly to fit its null, or targets were
            stopped.
        p_plugin: the paper's p-value, ``exp(log_p_plugin)``.
        p_calibrated: the calibrated p-value in (0, 1].
        others: positions of further statistics that stand out together with the largest, in their
            order.
        nulls: those of the tests for one target, two and so on; empty when there is no test.
        reason: why there is no test; empty when there is one.
    """

    index: int | None
    log_p_plugin: float | None = None
    p_plugin: float | None = None
    p_calibrated: float | None = None
    others: tuple[int, ...] = ()
    nulls: tuple[FittedNull, ...] = ()
    reason: str = ""

    @property
    def fitted(self) -> FittedNull | None:
        """The null of the test that the p-value is of, fitted to all other statistics."""
        return self.nulls[len(self.others)] if self.nulls else None

    @property
    def alone(self) -> FittedNull | None:
        """The null of the test of the largest alone."""
        return self.nulls[0] if self.nulls else None

    @property
    def count(self) -> int:
        """Number of statistics that the test is of; 0 when there is none."""
        return self.alone.count if self.alone else 0

    @property
    def null(self) -> dict[str, float]:
        """The fitted null's parameters by name; empty when there is no test."""
        return {"shape": self.fitted.shape, "scale": self.fitted.scale} if self.fitted else {}

    def critical(self, level: float) -> float | None:
        """The smallest largest statistic whose calibrated p-value is at most ``level``.

        What the largest statistic must be, the others being as they are; the inverse of
        :func:`order_statistic_test` with the fitted null held. ``None`` when there is no test, or
        none is large enough.

        Args:
            level: in (0, 1).
        """
        return self.alone.critical(level) if self.alone else None


def order_statistic_test(
    r: Array,
    groups: NDArray[np.int64] | None = None,
    prior: SpreadPrior | None = None,
    censored: NDArray[np.bool_] | None = None,
    race: Race | None = None,
    shares: Array | None = None,
    several: bool = False,
) -> OrderStatisticTest:
    """Test whether the largest of the statistics is larger than chance allows (paper, Sec. 3.2).

    Args:
        r: detection statistics ``[n]``, positive, larger = more suspicious. ``0`` stands for "no
            pattern found" (an infinite size): such statistics are the smallest, whatever their
            value, so they count in n but not in the fit, and the calibration leaves out as many.
            With a prior fewer than 4 known ones are tested on their own: too many are then unknown
            to be merely the smallest of one kind. That makes the p-value larger.
        groups: ``[n]``: the target class of each statistic, when there are several per class (all
            class pairs). The null is fitted without the whole group of the largest one.
        prior: of the null's spread; the paper has none.
        censored: ``[n]``: statistics of which ``r`` is an upper bound, because the search for the
            pattern ended at a largest size. With a prior they count in the fit with their bound.
        race: of the searches, where targets were stopped. Statistics below its bound, and those of
            0, count as smaller than the bound and no more; the null is fitted by censored maximum
            likelihood. The paper's p-value, which needs them all, is then ``None``.
        shares: how much of each statistic counts ``[n]``, in (0, 1]; the paper's p-value is of all
            of it. See :func:`detectors.logit_gap.shares`.
        several: with a prior and one statistic per class, whether the largest two, three and so on
            may stand out together. The p-value is the smallest of these tests', each divided by its
            share of the error rate.

    Returns:
        The test, or a reason why there is none: too few statistics, NaN or infinite values, or no
        spread. If some tie for the largest, it is the first of them: sizes that grow by steps may.
    """
    r = np.asarray(r, dtype=np.float64)
    if not np.isfinite(r).all() or (r < 0).any():
        return OrderStatisticTest(None, reason="some statistics are not finite")
    groups = np.arange(len(r)) if groups is None else np.asarray(groups)
    bounds = np.zeros(len(r), dtype=bool) if censored is None else np.asarray(censored)
    if len(r) >= MIN_STATISTICS and bounds.all():
        return OrderStatisticTest(None, log_p_plugin=0.0, p_plugin=1.0, p_calibrated=1.0)
    r, bounds, limit = _known(r, bounds, prior, race)
    whole = r
    if shares is not None:
        bounds = bounds | (r * shares < limit)
        r = np.maximum(r * shares, limit)
    known = r > 0
    classes = len(np.unique(groups[known]))
    fewest = MIN_KNOWN_WITH_PRIOR if prior else MIN_STATISTICS
    if classes < fewest:
        few = "class with a pattern is" if classes == 1 else "classes with a pattern are"
        reason = f"{classes} {few} too few; the test needs {fewest}"
        return OrderStatisticTest(None, reason=reason)
    tested = known if classes < MIN_STATISTICS else np.ones_like(known)
    count, missing = int(tested.sum()), int((tested & ~known).sum())
    index = int(np.where(bounds, 0.0, r).argmax())
    same = groups == groups[index]
    if not _spreads(r[known]) or (prior is None and not _spreads(r[~same & known])):
        return OrderStatisticTest(None, reason="the statistics have no spread")
    censored_number, raced = (0, race) if limit else (int(bounds.sum()), None)
    group = int((tested & same).sum())
    order = np.argsort(-np.where(bounds, 0.0, r), kind="stable")
    shares_of = shares_of_error(count if several and prior else 1)
    comparable = int((r[order] >= r[index] / FARTHEST_APART).sum())
    testable = max(1, min(comparable, int((known & ~bounds).sum()) // 2))
    nulls = []
    for rank, share in enumerate(shares_of[:testable], start=1):
        rest = known & ~same
        rest[order[:rank]] = False
        table = null_table(count, group, missing, prior, censored_number, raced, rank)
        table = replace(table, strays=prior.strays if prior else 0.0, share=share)
        nulls.append(FittedNull(*_fit(r[rest], prior, limit), count, rank, table))
    p_values = [null.p(float(r[order[null.rank - 1]])) for null in nulls]
    best = int(np.argmin(p_values))
    stopped = limit and bounds.any()
    log_p_plugin = None if stopped else _log_p_paper(whole, groups, known & ~bounds, count)
    return OrderStatisticTest(
        index=index,
        log_p_plugin=log_p_plugin,
        p_plugin=None if log_p_plugin is None else float(np.exp(log_p_plugin)),
        p_calibrated=p_values[best],
        others=tuple(order[1 : best + 1].tolist()),
        nulls=tuple(nulls),
    )


def shares_of_error(count: int) -> tuple[float, ...]:
    """How the tests of so many statistics, for one target, two and so on, share the error rate."""
    if count < FEWEST_FOR_SEVERAL:
        return (1.0,)
    more = min(MOST_TARGETS, count // 2) - 1
    return (SHARE_OF_ONE, *[(1 - SHARE_OF_ONE) / more] * more)


def _known(
    r: Array, bounds: NDArray[np.bool_], prior: SpreadPrior | None, race: Race | None
) -> tuple[Array, NDArray[np.bool_], float]:
    """What is known of statistics ``[n]``.

    Returns:
        The statistics, 0 where nothing is known; of which that is an upper bound only; and the
        race's bound, 0 where it stopped none.
    """
    if prior is None or not (r[~bounds] > 0).any():
        r, bounds = np.where(bounds, 0.0, r), np.zeros_like(bounds)
    limit = float(race.bound(r)[0]) if race else 0.0
    if limit:  # else too few have a pattern, and none was stopped
        r, bounds = np.maximum(r, limit), r < limit
    return r, bounds, limit


def _log_p_paper(
    r: Array, groups: NDArray[np.int64], exact: NDArray[np.bool_], count: int
) -> float | None:
    """The paper's p-value, which knows neither priors nor bounds; ``None`` where nothing is fitted.

    Args:
        exact: ``[n]``: statistics that are known exactly.
    """
    index = int(np.where(exact, r, 0.0).argmax())
    rest = r[exact & (groups != groups[index])]
    if len(rest) < MIN_STATISTICS - 1 or not _spreads(rest):
        return None
    return _log_p(r[index], *_fit(rest, None), count)


def _spreads(values: Array) -> bool:
    return bool(np.ptp(values) > 1e-9 * values.max())


def _fit(rest: Array, prior: SpreadPrior | None, limit: float = 0.0) -> tuple[float, float]:
    """Shape and scale of the null, from the statistics without the largest.

    Args:
        limit: the statistics that are not above it are known only to be smaller.
    """
    known = rest[rest > limit]
    mean, mean_log = known.mean(keepdims=True), np.log(known).mean(keepdims=True)
    number, below = np.array([len(known)]), np.array([len(rest) - len(known)])
    if below:
        fit = fit_censored_gamma(mean, mean_log, number, np.array([limit]), below, prior)
    else:
        fit = fit_gamma(mean, mean_log, number, prior)
    return float(fit[0][0]), float(fit[1][0])


def _log_p(r: float, shape: float, scale: float, count: int, rank: int = 1) -> float:
    at, k, theta = (np.array([value]) for value in (r, shape, scale))
    return float(log_plugin_p(at, k, theta, count, rank)[0])
