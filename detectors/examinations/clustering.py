"""Activation clustering: do the training images of a class fall into two groups?

Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava, "Detecting Backdoor Attacks on
Deep Neural Networks by Activation Clustering" (SafeAI 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
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
from detectors.examinations.types import ExaminationInput, Labelled, Observation

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
class TwoClusters:
    """The training images of one class, in two clusters.

    Attributes:
        label: the class.
        places: of its images among all training images, int64 ``[m]``.
        smaller: those of them that lie in the smaller cluster.
        share: how large that is, in [0, 0.5].
        silhouette: how far the clusters are apart, in [-1, 1].
    """

    label: int
    places: Tensor
    smaller: Tensor
    share: float
    silhouette: float


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
        for one in self.clusters(train, features, data.generator):
            suspicious = self.is_suspicious(one)
            classes[str(one.label)] = {
                "images": len(one.places),
                "smaller": round(one.share, 4),
                "silhouette": round(one.silhouette, 4),
                "suspicious": suspicious,
                "listed": listed(train, one.smaller) if suspicious else [],
            }
        named = [label for label, found in classes.items() if found["suspicious"]]
        summary = (
            f"the training images of class {', '.join(named)} have a small, separate cluster."
            if named
            else f"none of {len(classes)} classes has a small, separate cluster."
        )
        return Observation(summary, {"classes": classes})

    def clusters(
        self, train: Labelled, features: Tensor, generator: torch.Generator
    ) -> Iterator[TwoClusters]:
        """Every class with enough images in two clusters, by their features ``[n, D]``.

        Raises:
            Skipped: there is no such class.
        """
        for label, places in by_class(train, self.least):
            points = whitened(features[places], self.dimensions)
            smaller = two_means(points, generator)
            share = float(smaller.float().mean())
            yield TwoClusters(label, places, places[smaller], share, silhouette(points, smaller))

    def is_suspicious(self, one: TwoClusters) -> bool:
        """Whether the smaller cluster of a class is small, and apart from the other one."""
        return 0 < one.share < self.size and one.silhouette > self.separation
