"""Spectral signatures: training images that stick out along one direction of feature space.

Tran, Li, Madry, "Spectral Signatures in Backdoor Attacks" (NeurIPS 2018), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from detectors.examinations.training import by_class, listed, training_features, training_passes
from detectors.examinations.types import ExaminationInput, Observation

_TINY = 1e-12


def outlier_scores(features: Tensor) -> Tensor:
    """``τ_i = ((R_i - R̂) · v)²`` ``[n]`` of features ``[n, D]`` of one class (Algorithm 1).

    v is the top right singular vector of the centred features.
    """
    centred = features.double() - features.double().mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return (centred @ directions[0]).square()


@dataclass(frozen=True)
class SpectralSignatures:
    """Spectral signatures of the training images.

    Attributes:
        epsilon: share of a class that may be poisoned; ``1.5 ε n`` images are named for removal,
            as in Algorithm 1. The paper's experiments poison 5 % and 10 %.
        least: images of a class below which it is left out.
    """

    epsilon: float = 0.05
    least: int = 20

    name: ClassVar[str] = "spectral-signatures"
    cannot_see: ClassVar[str] = (
        "poisoned images whose features lie among those of the class (WB, LIRA), and attacks whose "
        "poisoned images are not among those given; it names outliers of clean classes too"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        return training_passes(data)

    def look(self, data: ExaminationInput) -> Observation:
        """Score the training images class by class."""
        train, features = training_features(data)
        classes: dict[str, Any] = {}
        for label, members in by_class(train, self.least):
            scores = outlier_scores(features[members])
            order = scores.argsort(descending=True)
            removed = max(1, round(1.5 * self.epsilon * len(scores)))
            top, rest = scores[order[:removed]], scores[order[removed:]]
            classes[str(label)] = {
                "images": len(members),
                "removed": listed(train, members[order[:removed]]),
                "ratio": round(float(top.mean() / rest.mean().clamp_min(_TINY)), 2),
            }
        worst = max(classes, key=lambda label: classes[label]["ratio"])
        ratio = classes[worst]["ratio"]
        summary = (
            f"of {len(classes)} classes, the outliers of class {worst} stick out most: the mean "
            f"score of its top {1.5 * self.epsilon:.1%} is {ratio:.1f} times that of the others."
        )
        return Observation(summary, {"epsilon": self.epsilon, "classes": classes})
