"""What a search found, as the plain numbers of a detector's result."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from detectors.gamma import Array
from detectors.race import Race
from detectors.rows import Rows
from detectors.search import SearchResult
from detectors.types import ClassStatistic


def class_statistics(
    found: SearchResult, rows: Rows, statistics: Array
) -> tuple[ClassStatistic, ...]:
    """One entry per row, as plain numbers.

    Args:
        statistics: r_t of every row ``[R]``.
    """
    rates = (found.weights * found.flips).sum(1).tolist()
    columns = zip(
        rows.targets.tolist(),
        statistics.tolist(),
        found.size.tolist(),
        rates,
        found.weights.tolist(),
        rows.support.tolist(),
        found.steps.tolist(),
        strict=True,
    )
    return tuple(
        ClassStatistic(
            target=target,
            statistic=statistic if np.isfinite(statistic) else 0.0,  # the test's reason tells of it
            size=size if np.isfinite(size) else None,
            flip_rate=rate,
            weights={s: w for s, (w, on) in enumerate(zip(weights, support, strict=True)) if on},
            steps=steps,
        )
        for target, statistic, size, rate, weights, support, steps in columns
    )


def smallest_patterns(found: SearchResult, rows: Rows) -> dict[int, Tensor]:
    """Target -> its smallest pattern."""
    patterns: dict[int, Tensor] = {}
    for row in found.size.argsort().tolist():
        patterns.setdefault(int(rows.targets[row]), found.theta[row].cpu())
    return patterns


def shift_notes(found: SearchResult, largest: float, unit: str) -> tuple[str, ...]:
    """Sentences on the shifts of an all-to-all attack without a pattern."""
    missing = int(found.size.isinf().sum())
    if not missing:
        return ()
    bound = f" up to {largest:.3g} ({unit})" if np.isfinite(largest) else ""
    notes = [
        f"no pattern{bound} for {missing} of {len(found.size)} shifts of all "
        "classes, as is usual without an all-to-all backdoor"
    ]
    if lost := int(found.lost.sum()):
        notes.append(f"for {lost} of them the search ended early, because the gradient vanished")
    return tuple(notes)


def race_notes(race: Race, bound: float, stopped: Tensor, unit: str) -> tuple[str, ...]:
    """A sentence on the targets ``[R]`` that a race stopped at that size."""
    if not stopped.any():
        return ()
    return (
        f"{int(stopped.sum())} of {len(stopped)} targets were stopped when their pattern had grown "
        f"beyond {bound:.3g} ({unit}), {race.factor:g} times the largest of the {race.leaders} "
        "smallest: they count as less suspicious",
    )


def gap_note(size: Tensor, rows: Rows, counted: Array | None) -> tuple[str, ...]:
    """A sentence if the statistic of the smallest pattern's target does not count in full.

    Args:
        size: of the rows' patterns ``[R]``.
        counted: how much of each row's statistic counts ``[R]``.
    """
    smallest = int(size.argmin())
    if counted is None or counted[smallest] == 1:
        return ()
    return (
        f"class {int(rows.targets[smallest])} has the smallest pattern, but the logits of clean "
        "images are close to it without a pattern, too: only "
        f"{counted[smallest]:.0%} of its statistic counts",
    )


def search_notes(
    found: SearchResult,
    rows: Rows,
    num_classes: int,
    tested: int,
    ended: Tensor | None = None,
) -> tuple[str, ...]:
    """Sentences on the targets without a search or without a pattern.

    Args:
        tested: of how many patterns the test is; see :attr:`OrderStatisticTest.count`.
        ended: the targets ``[R]`` that were not stopped early; all if ``None``.
    """
    notes = []
    if unsearched := sorted(set(range(num_classes)) - set(rows.targets.tolist())):
        listed = ", ".join(map(str, unsearched))
        notes.append(f"target {listed} was not searched: there are no images of another class")
    possible = int(rows.support.any(0).sum()) - 1
    most = int(rows.support.sum(1).max())
    if len(rows) <= num_classes and most < possible:  # else every row has a source of its own
        notes.append(f"every target was searched from {most} of {possible} possible source classes")
    without = found.size.isinf() if ended is None else found.size.isinf() & ended
    missing = sorted({int(t) for t in rows.targets[without].tolist()})
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        alone = 0 < tested < len(rows)
        meaning = (
            f"the {tested} patterns that were found are compared with one another alone"
            if alone
            else "the least suspicious, of unknown size"
        )
        notes.append(f"no pattern found within the step limit for target {listed}: {meaning}")
    return tuple(notes)
