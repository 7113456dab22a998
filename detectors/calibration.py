"""Monte-Carlo null of the order-statistic test: plug-in p-value in, calibrated p-value out.

``python -m detectors.calibration`` writes the shipped table, ``calibration.npz``. Numbers of
statistics that it does not hold are simulated when they are needed and cached in the user's cache
directory where that can be written, which the worker process of a scan cannot.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.gamma import Array, SpreadPrior, fit_censored_gamma, fit_gamma, log_plugin_p
from detectors.race import Race
from modelaudit.files import cache_directory

#: Calibrated p-values at which the null's quantiles of log(plug-in p) are stored.
LEVELS: Array = np.concatenate(
    [np.geomspace(1e-5, 1e-2, 31), np.linspace(0.01, 1.0, 100)[1:-1]]
).astype(np.float64)
#: Shape of the simulated Gamma. For K >= 5 and shapes from 2 to 300 the 5 % quantile of the plug-in
#: p moves by less than a fifth of itself around this one.
NULL_SHAPE = 5.0
SHIPPED_DRAWS = 2_000_000
CACHED_DRAWS = 1_000_000
#: Numbers of statistics in the shipped table.
SHIPPED_COUNTS = (*range(4, 65), 80, 100, 128, 200, 256, 365, 500, 512, 525, 1000)
#: Class counts whose class pairs (P-RED) are in it too.
SHIPPED_PAIRS = (10,)
#: Numbers of statistics whose nulls with a prior are in it, for every embedding's prior.
SHIPPED_WITH_PRIOR = (*range(2, 31), 43, 64, 100, 128, 200, 256, 365, 525, 1000)
#: Numbers of statistics of which the smallest are unknown (how many) with the priors of L-RED.
SHIPPED_MISSING = {10: range(1, 7)}
#: Numbers of shifts (all-to-all) whose nulls with censored ones are in it.
SHIPPED_CENSORED = (9,)
#: More of them, whose nulls with a race are in it, for the priors of L-RED.
SHIPPED_RACED = (*range(31, 65), 101, 102, 120)
PRIOR_DRAWS = 400_000
RACED_DRAWS = 200_000
#: Of tables with a race that are not shipped. Censored fits take long, one to two seconds for so
#: many; they know the level 0.007 (0.05 for the first of seven detectors) to 4 % of itself.
CACHED_RACED_DRAWS = 100_000
_SEED = 20210


@dataclass(frozen=True)
class NullTable:
    """Quantiles of log(plug-in p) under the null.

    Attributes:
        quantiles: ``[len(LEVELS)]``, increasing.
        strays: share of models that they do not describe; see :class:`detectors.gamma.SpreadPrior`.
    """

    quantiles: Array
    strays: float = 0.0

    def calibrate(self, log_p: float) -> float:
        """Calibrated p-value of one plug-in p-value.

        That of a stray model may be as small as any, so their share is added.
        """
        return self.strays + (1 - self.strays) * self._level(log_p)

    def _level(self, log_p: float) -> float:
        """Level at which a plug-in p-value is the quantile.

        Between the stored levels: linear in (log plug-in p, log level) in the lower tail and in
        level above. Below the smallest level the line through the last decade is continued, which
        is monotone and, since the curve is concave there, errs to the larger p.
        """
        q, level = self.quantiles, LEVELS
        if log_p >= q[-1]:
            top = (log_p - q[-1]) / max(-q[-1], 1e-12)
            return float(min(1.0, level[-1] + (1 - level[-1]) * top))
        if log_p >= q[0]:
            return float(np.exp(np.interp(log_p, q, np.log(level))))
        decade = int(np.searchsorted(level, 10 * level[0]))
        slope = (np.log(level[decade]) - np.log(level[0])) / (q[decade] - q[0])
        return float(np.exp(max(np.log(level[0]) + slope * (log_p - q[0]), -700.0)))


def simulate(
    count: int,
    group: int,
    missing: int,
    draws: int,
    prior: SpreadPrior | None = None,
    censored: int = 0,
    race: Race | None = None,
    seed: int = _SEED,
) -> NullTable:
    """Simulate the null of the test.

    Args:
        count: number of statistics n.
        group: how many of them belong to the class of the largest and stay out of the fit: 1 for
            one statistic per class, K - 1 for class pairs.
        missing: how many of the smallest are unknown (no pattern found) and stay out as well.
        draws: number of simulated data sets.
        prior: of the spread; the shape is then drawn anew for every data set.
        censored: how many of the smallest of the rest are known by an upper bound only, which is
            taken to be the largest of them.
        race: of the searches; it decides anew for every data set which are known by its bound only.
    """
    rng = np.random.default_rng([seed, count, group, missing, *([censored] if prior else [])])
    log_p: list[Array] = []
    chunk = max(1, 4_000_000 // count)
    for start in range(0, draws, chunk):
        size = (min(chunk, draws - start), count)
        r = rng.gamma(_shapes(prior, size[0], rng), size=size)
        in_fit = ~_group_of_maximum(r, group)
        if ranks := [rank - 1 for rank in (missing, missing + censored) if rank]:
            ordered = np.partition(r, ranks, axis=-1)
            if missing:
                in_fit &= r > ordered[:, missing - 1 : missing]
            if censored:
                r = np.maximum(r, ordered[:, missing + censored - 1 : missing + censored])
        fit = _fits(r, in_fit, prior, race)
        log_p.append(log_plugin_p(r.max(-1), *fit, count))
    return NullTable(np.quantile(np.concatenate(log_p), LEVELS))


def _fits(
    r: Array, in_fit: NDArray[np.bool_], prior: SpreadPrior | None, race: Race | None
) -> tuple[Array, Array]:
    """Shape and scale ``[draws]`` of the nulls fitted to those statistics ``[draws, n]``."""
    bound = race.bound(r) if race else np.zeros((len(r), 1))
    known = in_fit & (r >= bound)
    number = known.sum(-1)
    mean = (r * known).sum(-1) / number
    mean_log = (np.log(r) * known).sum(-1) / number
    if race is None:
        return fit_gamma(mean, mean_log, number, prior)
    below = in_fit.sum(-1) - number
    return fit_censored_gamma(mean, mean_log, number, bound[:, 0], below, prior)


def _shapes(prior: SpreadPrior | None, draws: int, rng: np.random.Generator) -> Array | float:
    """Gamma shapes ``[draws, 1]`` of the simulated data sets."""
    if prior is None:
        return NULL_SHAPE
    deviation = np.sqrt(2 / prior.weight)
    return np.asarray(prior.shape * np.exp(deviation * rng.standard_normal((draws, 1))))


def _group_of_maximum(r: Array, group: int) -> NDArray[np.bool_]:
    """``[draws, n]``: which statistics are of the class of the largest one.

    Groups are consecutive; where n is no multiple, the last one overlaps the one before it.
    """
    count = r.shape[1]
    start = np.minimum(r.argmax(-1) // group * group, count - group)[:, None]
    position = np.arange(count)[None]
    return (position >= start) & (position < start + group)


@lru_cache(maxsize=64)
def null_table(
    count: int,
    group: int = 1,
    missing: int = 0,
    prior: SpreadPrior | None = None,
    censored: int = 0,
    race: Race | None = None,
) -> NullTable:
    """The null for these numbers (see :func:`simulate`): shipped, cached or simulated now.

    It has no strays.
    """
    key = table_key(count, group, missing, prior, censored, race)
    with resources.files("detectors").joinpath("calibration.npz").open("rb") as file:
        shipped = np.load(file)
        if key in shipped:
            return NullTable(shipped[key].astype(np.float64))
    path = cache_directory() / f"null-v1-{key}.npy"
    try:
        return NullTable(np.load(path))
    except (OSError, ValueError, EOFError):
        draws = CACHED_DRAWS // (1 if count <= 200 else 4) // (2 if prior else 1)
        draws = min(draws, CACHED_RACED_DRAWS) if race else draws
        table = simulate(count, group, missing, draws, prior, censored, race)
        _store(path, table.quantiles)
        return table


def _store(path: Path, quantiles: Array) -> None:
    """Keep a table for the next run; a read-only home is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
        np.save(temporary, quantiles)
        temporary.replace(path)
    except OSError:
        return


def table_key(
    count: int,
    group: int,
    missing: int,
    prior: SpreadPrior | None = None,
    censored: int = 0,
    race: Race | None = None,
) -> str:
    """Name of a table in the shipped file and in the cache."""
    key = f"{count}-{group}-{missing}"
    key += f"-{prior.shape:g}-{prior.weight:g}-{censored}" if prior else ""
    return f"{key}-race-{race.leaders}-{race.factor:g}" if race else key


def shipped_with_prior() -> dict[str, NullTable]:
    """The shipped tables for the priors of the detectors."""
    from detectors import mm_bd
    from detectors.lred import PRIORS, SHIFT_PRIOR, LRed

    searches, counts = set(PRIORS.values()), SHIPPED_WITH_PRIOR
    wanted: list[tuple[int, int, int, SpreadPrior, int, Race | None]] = [
        (n, 1, 0, prior, 0, None) for prior in {*searches, SHIFT_PRIOR, mm_bd.PRIOR} for n in counts
    ]
    wanted += [
        (n, 1, missing, prior, 0, None)
        for prior in searches
        for n, numbers in SHIPPED_MISSING.items()
        for missing in numbers
    ]
    wanted += [(n, 1, 0, SHIFT_PRIOR, c, None) for n in SHIPPED_CENSORED for c in range(1, n)]
    wanted += [
        (n, 1, 0, prior, 0, race)
        for prior in searches
        for n in sorted({*counts, *SHIPPED_RACED})
        if (race := Race.of(n, LRed.race))
    ]
    return {
        table_key(*one): simulate(*one[:3], RACED_DRAWS if one[-1] else PRIOR_DRAWS, *one[3:])
        for one in wanted
    }


def main() -> None:
    """Write the shipped table (about 25 minutes on one core)."""
    tables = {key: null.quantiles for key, null in shipped_with_prior().items()}
    for count in SHIPPED_COUNTS:
        draws = SHIPPED_DRAWS if count <= 64 else SHIPPED_DRAWS // 4
        tables[table_key(count, 1, 0)] = simulate(count, 1, 0, draws).quantiles
    for classes in SHIPPED_PAIRS:
        pairs = classes * (classes - 1)
        null = simulate(pairs, classes - 1, 0, SHIPPED_DRAWS // 4)
        tables[table_key(pairs, classes - 1, 0)] = null.quantiles
    path = Path(__file__).with_name("calibration.npz")
    np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in tables.items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
