"""Activation clustering: do the training images of a class fall into two groups?

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava, "Detecting Backdoor Attacks on
Deep Neural Networks by Activation Clustering" (SafeAI 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from detectors.examinations.training import (
    by_class,
    listed,
    silhouette,
    training_features,
    training_passes,
    two_means,
)
from detectors.examinations.types import ExaminationInput, Observation

_TINY = 1e-9  # share of the largest singular value below which a direction is rounding


def whitened(features: Tensor, dimensions: int) -> Tensor:
    """Features ``[n, D]`` along their first principal directions, each with variance 1.

    The paper reduces by ICA, which is this and a rotation. Distances, and with them k-means and
    silhouettes, do not change under a rotation, so it is left out.
    """
    centred = features.double() - features.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    count = min(dimensions, int((values > _TINY * values[0]).sum()))
    return left[:, :count] * len(features) ** 0.5


@dataclass(frozen=True)
class ActivationClustering:
    """Activation clustering of the training images.

    Attributes:
        dimensions: after the reduction; the paper's 10.
        size: a class is suspicious if its smaller cluster holds less than this share of it ...
        separation: ... and the silhouette is above this; the paper calls 0.10 to 0.15 a reasonable
            threshold. 0.35 and 0.10 are the usual settings.
        least: images of a class below which it is left out: in so many dimensions few points have
            no clusters.
    """

    dimensions: int = 10
    size: float = 0.35
    separation: float = 0.10
    least: int = 50

    name: ClassVar[str] = "activation-clustering"
    cannot_see: ClassVar[str] = (
        "poisoned images whose features lie among those of the class (WB, LIRA), very few of them, "
        "and attacks whose poisoned images are not among those given"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        return training_passes(data)

    def look(self, data: ExaminationInput) -> Observation:
        """Cluster the training images class by class."""
        train, features = training_features(data)
        classes: dict[str, Any] = {}
        for label, places in by_class(train, self.least):
            points = whitened(features[places], self.dimensions)
            smaller = two_means(points, data.generator)
            share, value = float(smaller.float().mean()), silhouette(points, smaller)
            suspicious = 0 < share < self.size and value > self.separation
            classes[str(label)] = {
                "images": len(places),
                "smaller": round(share, 4),
                "silhouette": round(value, 4),
                "suspicious": suspicious,
                "listed": listed(train, places[smaller]) if suspicious else [],
            }
        named = [label for label, found in classes.items() if found["suspicious"]]
        summary = (
            f"the training images of class {', '.join(named)} have a small, separate cluster."
            if named
            else f"none of {len(classes)} classes has a small, separate cluster."
        )
        return Observation(summary, {"classes": classes})
