"""Monte-Carlo null of the order-statistic test: plug-in p-value in, calibrated p-value out.

``python -m detectors.calibration`` writes the shipped table, ``calibration.npz``. Numbers of
statistics that it does not hold are simulated once and cached in the user's cache directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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
_SEED = 20210


@dataclass(frozen=True)
class NullTable:
    """Quantiles of log(plug-in p) under the null.

    Attributes:
        quantiles: ``[len(LEVELS)]``, increasing.
    """

    quantiles: Array

    def calibrate(self, log_p: float) -> float:
        """Calibrated p-value of one plug-in p-value.

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


def simulate(count: int, group: int, missing: int, draws: int, seed: int = _SEED) -> NullTable:
    """Simulate the null of the test.

    Args:
        count: number of statistics n.
        group: how many of them belong to the class of the largest and stay out of the fit: 1 for
            one statistic per class, K - 1 for class pairs.
        missing: how many of the smallest are unknown (no pattern found) and stay out as well.
        draws: number of simulated data sets.
    """
    from detectors.order_statistic import fit_gamma, log_plugin_p

    rng = np.random.default_rng([seed, count, group, missing])
    log_p: list[Array] = []
    chunk = max(1, 4_000_000 // count)
    for start in range(0, draws, chunk):
        r = rng.gamma(NULL_SHAPE, size=(min(chunk, draws - start), count))
        in_fit = ~_group_of_maximum(r, group)
        if missing:
            in_fit &= r > np.partition(r, missing - 1, axis=-1)[:, missing - 1 : missing]
        number = in_fit.sum(-1)
        mean = (r * in_fit).sum(-1) / number
        mean_log = (np.log(r) * in_fit).sum(-1) / number
        log_p.append(log_plugin_p(r.max(-1), *fit_gamma(mean, mean_log), count))
    return NullTable(np.quantile(np.concatenate(log_p), LEVELS))


def _group_of_maximum(r: Array, group: int) -> NDArray[np.bool_]:
    """``[draws, n]``: which statistics are of the class of the largest one.

    Groups are consecutive; where n is no multiple, the last one overlaps the one before it.
    """
    count = r.shape[1]
    start = np.minimum(r.argmax(-1) // group * group, count - group)[:, None]
    position = np.arange(count)[None]
    return (position >= start) & (position < start + group)


@lru_cache(maxsize=64)
def null_table(count: int, group: int = 1, missing: int = 0) -> NullTable:
    """The null for these numbers (see :func:`simulate`): shipped, cached or simulated now."""
    key = f"{count}-{group}-{missing}"
    with resources.files("detectors").joinpath("calibration.npz").open("rb") as file:
        shipped = np.load(file)
        if key in shipped:
            return NullTable(shipped[key].astype(np.float64))
    path = cache_directory() / f"null-v1-{key}.npy"
    try:
        return NullTable(np.load(path))
    except (OSError, ValueError, EOFError):
        draws = CACHED_DRAWS if count <= 200 else CACHED_DRAWS // 4
        table = simulate(count, group, missing, draws)
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


def cache_directory() -> Path:
    """``$MODELAUDIT_CACHE``, else ``$XDG_CACHE_HOME/modelaudit``, else ``~/.cache/modelaudit``."""
    if own := os.environ.get("MODELAUDIT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelaudit"


def main() -> None:
    """Write the shipped table (about 10 minutes on one core)."""
    tables = {}
    for count in SHIPPED_COUNTS:
        draws = SHIPPED_DRAWS if count <= 64 else SHIPPED_DRAWS // 4
        tables[f"{count}-1-0"] = simulate(count, 1, 0, draws).quantiles
    for classes in SHIPPED_PAIRS:
        pairs = classes * (classes - 1)
        null = simulate(pairs, classes - 1, 0, SHIPPED_DRAWS // 4)
        tables[f"{pairs}-{classes - 1}-0"] = null.quantiles
    path = Path(__file__).with_name("calibration.npz")
    np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in tables.items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
