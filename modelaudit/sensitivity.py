"""What a scan looked for, and how strong an attack had to be to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from detectors import registry
from detectors.embeddings import EMBEDDINGS
from detectors.types import DetectorResult
from modelaudit.evidence import LookedFor
from modelaudit.report import are_reciprocal
from modelaudit.verdict import holm


def looked_for(results: Sequence[DetectorResult], alpha: float) -> tuple[LookedFor, ...]:
    """One entry for every detector with a p-value that could have decided the verdict alone."""
    judged = [(one, one.p_calibrated) for one in results if one.p_calibrated is not None]
    weights = registry.weights((one.detector for one, _ in judged), alpha)
    tested = [(one, (p, weights[one.detector])) for one, p in judged]
    entries = []
    for index, (result, _) in enumerate(tested):
        others = [weighted for _, weighted in tested]
        _, weight = others.pop(index)
        level = rejection_level(others, alpha, weight)
        statistic = _critical(result, level)
        if statistic is None and result.null and result.critical:
            continue  # strays alone reach the level
        reciprocal = are_reciprocal((one.statistic, one.size) for one in result.classes)
        sizes = [one.size for one in result.classes if one.size is not None and reciprocal]
        entries.append(
            LookedFor(
                detector=result.detector,
                sees=what_it_sees(result.detector, result.settings),
                level=level,
                statistic=statistic,
                size=1 / statistic if statistic and reciprocal else None,
                smallest=min(sizes, default=None),
                unit=result.unit,
            )
        )
    return tuple(entries)


def rejection_level(
    others: Sequence[tuple[float, float]], alpha: float, weight: float = 1.0
) -> float:
    """The p-value below which Holm's procedure rejects one of this weight.

    Args:
        others: p-values and weights of the others.
    """
    # As the others are rejected one by one, what is left of alpha is shared by fewer.
    ordered = sorted(others, key=lambda one: one[0] / one[1])
    left = [math.fsum(w for _, w in ordered[k:]) for k in range(len(ordered) + 1)]
    levels = sorted((alpha * weight / (weight + rest) for rest in left), reverse=True)
    p_values, weights = [p for p, _ in others], [weight, *(w for _, w in others)]
    below = 1 - 1e-9  # the smallest of these levels always rejects
    return next(level for level in levels if holm([level * below, *p_values], weights)[0] < alpha)


def _critical(result: DetectorResult, level: float) -> float | None:
    """What the largest statistic had to be; ``None`` where that is not known."""
    statistic = result.critical(level) if result.critical else None
    if statistic is None:
        return None
    suspicious = result.suspicious_entry
    others = (one.statistic for one in result.classes if one.target != suspicious)
    return max(statistic, *others)


def what_it_sees(detector: str, settings: Mapping[str, Any]) -> str:
    """The attacks that a detector with these settings is for, in a few words."""
    embedding = EMBEDDINGS.get(str(settings.get("embedding")))
    if embedding is not None:
        all_to_all = settings.get("sources") == "all-to-all"
        return f"all-to-all attacks: {embedding.sees}" if all_to_all else embedding.sees
    try:
        return registry.find(detector).summary
    except ValueError:  # not registered
        return detector
