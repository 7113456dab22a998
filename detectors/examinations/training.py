"""What the examinations of training images share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detectors.examinations.types import ExaminationInput, Labelled, Skipped
from modelaudit.features import penultimate

_MOST_LISTED = 50


def training_features(data: ExaminationInput) -> tuple[Labelled, Tensor]:
    """The training images and their penultimate activations ``[n, D]``.

    Raises:
        Skipped: there are none.
        FeaturesUnavailable: see :func:`modelaudit.features.penultimate`.
    """
    if data.train is None:
        raise Skipped("it needs images that the model was trained on (--train-dir)")
    return data.train, penultimate(data.classifier, data.train.pixels).activations


def training_passes(data: ExaminationInput) -> float:
    """One forward pass of every training image."""
    return 0.0 if data.train is None else len(data.train) / 2


def by_class(train: Labelled, least: int) -> Iterator[tuple[int, Tensor]]:
    """Classes with at least ``least`` images, and the places of their images ``[m]``.

    Raises:
        Skipped: there is no such class.
    """
    labels, counts = train.labels.unique(return_counts=True)
    enough = labels[counts >= least].tolist()
    if not enough:
        raise Skipped(f"it needs at least {least} training images of a class")
    for label in enough:
        yield label, (train.labels == label).nonzero().flatten()


def listed(train: Labelled, places: Tensor) -> list[str]:
    """The first of these images, by file name where they have one."""
    chosen = places[:_MOST_LISTED].tolist()
    return [train.names[i] if train.names else str(i) for i in chosen]


def two_means(points: Tensor, generator: torch.Generator, starts: int = 10) -> Tensor:
    """Cluster points ``[n, D]`` in two by k-means; bool ``[n]``, true in the smaller cluster.

    Lloyd's algorithm from ``starts`` pairs of distant points (k-means++); the tightest result.
    """
    best, least = torch.zeros(len(points), dtype=torch.bool), torch.inf
    for _ in range(starts):
        first = int(torch.randint(len(points), (), generator=generator))
        distance = (points - points[first]).square().sum(1)
        if not float(distance.sum()):  # all points are the same
            continue
        second = int(torch.multinomial(distance.float(), 1, generator=generator))
        centres = points[[first, second]]
        for _ in range(100):
            members = torch.cdist(points, centres).argmin(1).bool()
            if members.all() or not members.any():
                break
            moved = torch.stack([points[~members].mean(0), points[members].mean(0)])
            if torch.equal(moved, centres):
                break
            centres = moved
        spread = float(torch.cdist(points, centres).amin(1).square().sum())
        if spread < least:
            best, least = members, spread
    return ~best if best.sum() > len(best) / 2 else best


def silhouette(points: Tensor, members: Tensor) -> float:
    """Mean silhouette of two clusters, in [-1, 1]; 0 where one of them is empty.

    ``(b - a) / max(a, b)`` with the mean distances a to the own cluster's other points and b to
    the other cluster's; 0 for a point that is alone (Rousseeuw 1987).
    """
    if members.all() or not members.any():
        return 0.0
    distance = torch.cdist(points, points)
    sides = torch.stack([~members, members]).to(distance)
    sums, sizes = distance @ sides.T, sides.sum(1)
    own = members.long()[:, None]
    inside = sums.gather(1, own).squeeze(1) / (sizes[members.long()] - 1).clamp_min(1)
    outside = sums.gather(1, 1 - own).squeeze(1) / sizes[1 - members.long()]
    value = (outside - inside) / torch.maximum(inside, outside).clamp_min(1e-12)
    return float(value.where(sizes[members.long()] > 1, torch.zeros_like(value)).mean())
