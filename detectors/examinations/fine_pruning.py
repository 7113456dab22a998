"""Fine-pruning: does the pattern still work when units that clean images leave dormant are off?

Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
Networks" (RAID 2018), section 3: the units of one layer that clean images activate least are pruned
first. The layer is the penultimate one; the fine-tuning after the pruning is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detectors.examinations.types import ExaminationInput, Observation, rounded
from modelaudit.features import penultimate

_POINTS = 21
_MOST = 1000  # images that are looked at


@dataclass(frozen=True)
class PruningPoint:
    """Fractions of clean and of triggered images classified as wanted, ``pruned`` units off."""

    pruned: int
    clean_accuracy: float
    asr: float


def pruning_order(activations: Tensor) -> Tensor:
    """Units, int64 ``[D]``, least active first: the mean of clean ``activations`` ``[N, D]``."""
    return activations.mean(0).argsort(stable=True)


@torch.no_grad()
def pruning_curve(
    head: Callable[[Tensor], Tensor],
    clean: Tensor,
    labels: Tensor,
    attacked: Tensor,
    wanted: Tensor,
) -> list[PruningPoint]:
    """Prune from no unit to all but one, in about 20 steps.

    Args:
        head: the last layer, activations ``[N, D]`` -> logits ``[N, K]``.
        clean: activations of clean images ``[N, D]``, and their ``labels`` ``[N]``.
        attacked: activations of triggered images ``[M, D]``, and what they are ``wanted`` to be
            classified as ``[M]``.
    """
    order = pruning_order(clean)
    counts = torch.linspace(0, len(order) - 1, min(_POINTS, len(order))).round().long()
    curve = []
    for count in counts.tolist():
        kept = torch.ones(len(order))
        kept[order[:count]] = 0
        hits = [
            float((head(values * kept).argmax(1) == classes).float().mean())
            for values, classes in ((clean, labels), (attacked, wanted))
        ]
        curve.append(PruningPoint(count, *hits))
    return curve


@dataclass(frozen=True)
class FinePruning:
    """The fine-pruning curve of the pattern found.

    Attributes:
        tolerance: loss of clean accuracy up to which units are pruned; the paper's 4 points.
    """

    tolerance: float = 0.04

    name: ClassVar[str] = "fine-pruning"
    cannot_see: ClassVar[str] = (
        "backdoors in units that clean images use too, or in other layers; a pattern that survives "
        "the pruning says nothing for the model"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        return data.clean_count(_MOST)  # one forward pass of all, and one of the stamped ones

    def look(self, data: ExaminationInput) -> Observation:
        """Measure the curve."""
        finding, victims = data.require_finding(), data.victims(_MOST)
        clean = data.some_clean(_MOST)
        stamped = finding.stamped(victims.pixels)
        seen = penultimate(data.classifier, torch.cat([clean.pixels, stamped]))
        before, attacked = seen.activations.split([len(clean), len(stamped)])
        wanted = torch.full((len(stamped),), finding.target)
        curve = pruning_curve(seen.head, before, clean.labels, attacked, wanted)
        allowed = curve[0].clean_accuracy - self.tolerance
        harmless = [point for point in curve if point.clean_accuracy >= allowed]
        last, units = harmless[-1], before.shape[1]
        summary = (
            f"with {last.pruned} of {units} units pruned, clean accuracy is "
            f"{last.clean_accuracy:.0%} (before {curve[0].clean_accuracy:.0%}) and the pattern "
            f"works on {last.asr:.0%} of the images (before {curve[0].asr:.0%})."
        )
        numbers = {
            "units": units,
            "pruned": [point.pruned for point in curve],
            "clean_accuracy": rounded([point.clean_accuracy for point in curve]),
            "flip_rate": rounded([point.asr for point in curve]),
            "tolerated": last.pruned,
        }
        return Observation(summary, numbers)
