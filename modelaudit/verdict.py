"""From the detectors' p-values to one verdict with a family-wise error of at most alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectors.types import DetectorResult
    from modelaudit.checks import Check


class Verdict(StrEnum):
    """What a scan concludes. There is no "clean": a scan shows no evidence, it proves nothing."""

    BACKDOORED = "backdoored"
    NO_BACKDOOR_FOUND = "no-backdoor-found"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Decision:
    """The verdict and what it rests on.

    Attributes:
        verdict: the conclusion.
        targets: target classes of the detectors that found a backdoor, the surest first.
        found: Holm-adjusted p-value and place of each of these detectors, the surest first.
        p_holm: Holm-adjusted calibrated p-value of each detector, in the order given; ``None``
            where a detector has none.
        reasons: why the verdict is inconclusive; empty otherwise.
    """

    verdict: Verdict
    targets: tuple[int, ...]
    found: tuple[tuple[float, int], ...]
    p_holm: tuple[float | None, ...]
    reasons: tuple[str, ...]


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    In the order of p / w each p / w is multiplied by the sum of its own weight and those after it,
    and the results are made non-decreasing; with equal weights the i-th smallest of m p-values is
    multiplied by m - i + 1. Rejecting where the adjusted value is below alpha holds the family-wise
    error at alpha whatever the dependence (Holm 1979, "A simple sequentially rejective multiple
    test procedure", sections 3 and 4).

    Args:
        weights: positive, fixed before the p-values are known; all equal if ``None``.
    """
    w = weights or [1.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index] / w[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        share = w[index] / math.fsum(w[later] for later in order[rank:])
        running = max(running, min(1.0, p_values[index] / share))
        adjusted[index] = running
    return adjusted


def decide(
    results: Sequence[DetectorResult],
    checks: Sequence[Check],
    alpha: float,
    doubts: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
) -> Decision:
    """The verdict over the detectors that ran.

    ``backdoored`` if any Holm-adjusted p-value is below ``alpha``. Otherwise ``inconclusive`` if a
    preflight check is, if no detector ran, or if a detector that can judge such a model has no
    p-value, because the attacks that it is for were then not looked for.

    Args:
        doubts: further reasons why nothing found means nothing.
        weights: of the detectors in Holm's procedure; see :func:`holm`.
    """
    valid = [i for i, r in enumerate(results) if r.p_calibrated is not None]
    w = None if weights is None else [weights[results[i].detector] for i in valid]
    adjusted = holm([_p(results[i]) for i in valid], w)
    p_holm: list[float | None] = [None] * len(results)
    for index, p in zip(valid, adjusted, strict=True):
        p_holm[index] = p
    reasons = [check.message for check in checks if check.status == "inconclusive"]
    reasons += doubts
    judging = [r for r in results if r.applicable]
    reasons += [f"{r.detector}: {r.reason}" for r in judging if r.p_calibrated is None]
    if not judging and not reasons:
        reasons = [f"{r.detector}: {r.reason}" for r in results] or ["no detector ran"]
    found = tuple(sorted((p, i) for i, p in zip(valid, adjusted, strict=True) if p < alpha))
    targets = tuple(dict.fromkeys(t for _, index in found for t in results[index].targets))
    if targets:
        return Decision(Verdict.BACKDOORED, targets, found, tuple(p_holm), ())
    verdict = Verdict.INCONCLUSIVE if reasons else Verdict.NO_BACKDOOR_FOUND
    return Decision(verdict, (), found, tuple(p_holm), tuple(reasons))


def _p(result: DetectorResult) -> float:
    return 1.0 if result.p_calibrated is None else result.p_calibrated
