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
from detectors.race import FEWEST_RACED, Race
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
#: Of the nulls with several targets; of many or raced ones a quarter of that.
SEVERAL_DRAWS = 200_000
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
        share: of the error rate, that this one of several tests of a model may use up.
    """

    quantiles: Array
    strays: float = 0.0
    share: float = 1.0

    def calibrate(self, log_p: float) -> float:
        """Calibrated p-value of one plug-in p-value.

        That of a stray model may be as small as any, so their share is added.
        """
        level = min(1.0, self._level(log_p) / self.share)
        return self.strays + (1 - self.strays) * level

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
    rank: int = 1,
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
        rank: which of the statistics is tested, 1 for the largest; those before it stay out of the
            fit as it does. Then there is one statistic per class.
    """
    rng = np.random.default_rng([seed, count, group, missing, *([censored] if prior else [])])
    log_p: list[Array] = []
    chunk = max(1, 4_000_000 // count)
    for start in range(0, draws, chunk):
        size = (min(chunk, draws - start), count)
        r = rng.gamma(_shapes(prior, size[0], rng), size=size)
        if rank > 1:  # no more than half of what is known may stand out together
            known = (r >= race.bound(r)).sum(-1) if race else np.full(len(r), count - missing)
            log_p.append(np.zeros((known < 2 * rank).sum()))
            r = r[known >= 2 * rank]
        tested = np.partition(r, count - rank, axis=-1)[:, count - rank]
        in_fit = ~_group_of_maximum(r, group) if rank == 1 else r < tested[:, None]
        if ranks := [smallest - 1 for smallest in (missing, missing + censored) if smallest]:
            ordered = np.partition(r, ranks, axis=-1)
            if missing:
                in_fit &= r > ordered[:, missing - 1 : missing]
            if censored:
                r = np.maximum(r, ordered[:, missing + censored - 1 : missing + censored])
        log_p.append(log_plugin_p(tested, *_fits(r, in_fit, prior, race), count, rank))
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
    rank: int = 1,
) -> NullTable:
    """The null for these numbers (see :func:`simulate`): shipped, cached or simulated now.

    It has no strays.
    """
    key = table_key(count, group, missing, prior, censored, race, rank)
    if key in (tables := shipped_tables()):
        return NullTable(tables[key].astype(np.float64))
    path = cache_directory() / f"null-v1-{key}.npy"
    try:
        return NullTable(np.load(path))
    except (OSError, ValueError, EOFError):
        draws = CACHED_DRAWS // (1 if count <= 200 else 4) // (2 if prior else 1)
        draws = min(draws, CACHED_RACED_DRAWS) if race or rank > 1 else draws
        table = simulate(count, group, missing, draws, prior, censored, race, rank)
        _store(path, table.quantiles)
        return table


@lru_cache(maxsize=1)
def shipped_tables() -> dict[str, NDArray[np.float32]]:
    """The quantiles of the shipped tables by their names."""
    with resources.files("detectors").joinpath("calibration.npz").open("rb") as file:
        stored = np.load(file)
        return dict(zip(stored["names"].tolist(), stored["quantiles"], strict=True))


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
    rank: int = 1,
) -> str:
    """Name of a table in the shipped file and in the cache."""
    key = f"{count}-{group}-{missing}"
    key += f"-{prior.shape:g}-{prior.weight:g}-{censored}" if prior else ""
    key += f"-race-{race.leaders}-{race.factor:g}" if race else ""
    return f"{key}-rank-{rank}" if rank > 1 else key


#: What a table is of: the arguments of :func:`table_key`.
Key = tuple[int, int, int, SpreadPrior | None, int, Race | None, int]


def shipped() -> dict[Key, int]:
    """The tables that are shipped, and from how many draws each is."""
    wanted: dict[Key, int] = {
        (n, 1, 0, None, 0, None, 1): SHIPPED_DRAWS if n <= 64 else SHIPPED_DRAWS // 4
        for n in SHIPPED_COUNTS
    }
    for classes in SHIPPED_PAIRS:
        wanted[classes * (classes - 1), classes - 1, 0, None, 0, None, 1] = SHIPPED_DRAWS // 4
    return wanted | _with_prior() | _for_several()


def _with_prior() -> dict[Key, int]:
    """For the priors of the detectors."""
    from detectors.lred import PRIORS, SHIFT_PRIOR

    searches, wanted = set(PRIORS.values()), dict[Key, int]()
    for prior in {*searches, SHIFT_PRIOR, *_of_margins()}:
        wanted |= {(n, 1, 0, prior, 0, None, 1): PRIOR_DRAWS for n in SHIPPED_WITH_PRIOR}
    for n in SHIPPED_CENSORED:
        wanted |= {(n, 1, 0, SHIFT_PRIOR, c, None, 1): PRIOR_DRAWS for c in range(1, n)}
    for prior in searches:
        for n, numbers in SHIPPED_MISSING.items():
            wanted |= {(n, 1, missing, prior, 0, None, 1): PRIOR_DRAWS for missing in numbers}
        wanted |= {(n, 1, 0, prior, 0, race, 1): RACED_DRAWS for n, race in _races().items()}
    return wanted


def _for_several() -> dict[Key, int]:
    """For several targets, with the priors of the detectors that run by default."""
    from detectors.lred import PRIORS
    from detectors.order_statistic import shares_of_error

    def ranks(count: int) -> range:
        return range(2, len(shares_of_error(count)) + 1)

    searches, wanted = set(PRIORS.values()) - {PRIORS["generator"]}, dict[Key, int]()
    never_raced = _of_margins()
    for prior in {*searches, *never_raced}:
        for n in SHIPPED_WITH_PRIOR:
            if n < FEWEST_RACED or prior in never_raced:
                draws = SEVERAL_DRAWS if n <= 64 else SEVERAL_DRAWS // 4
                wanted |= {(n, 1, 0, prior, 0, None, rank): draws for rank in ranks(n)}
    for prior in searches:
        for n, numbers in SHIPPED_MISSING.items():
            wanted |= {
                (n, 1, missing, prior, 0, None, rank): SEVERAL_DRAWS
                for missing in numbers
                for rank in ranks(n)[: (n - missing) // 2 - 1]
            }
        for n, race in _races().items():
            wanted |= {(n, 1, 0, prior, 0, race, rank): SEVERAL_DRAWS // 4 for rank in ranks(n)}
    return wanted


def _of_margins() -> set[SpreadPrior]:
    """The priors of the detectors that search no smallest pattern, and race none."""
    from detectors import embedding_margin, mm_bd, wave_margin, window_margin

    by_embedding = {priors.usual for priors in embedding_margin.PRIORS.values()}
    return {*by_embedding, mm_bd.PRIOR, wave_margin.PRIOR, window_margin.PRIOR}


def _races() -> dict[int, Race]:
    """The races of so many targets."""
    from detectors.lred import LRed

    counts = sorted({*SHIPPED_WITH_PRIOR, *SHIPPED_RACED})
    return {n: race for n in counts if (race := Race.of(n, LRed.race))}


def main() -> None:
    """Add to the shipped tables those that are missing (for all: 45 minutes of a core)."""
    path = Path(__file__).with_name("calibration.npz")
    tables = shipped_tables() if path.exists() else {}
    for key, draws in shipped().items():
        count, group, missing, prior, censored, race, rank = key
        if (name := table_key(*key)) not in tables:
            null = simulate(count, group, missing, draws, prior, censored, race, rank)
            tables[name] = null.quantiles.astype(np.float32)
    np.savez_compressed(path, names=[*tables], quantiles=np.stack([*tables.values()]))


if __name__ == "__main__":
    main()
