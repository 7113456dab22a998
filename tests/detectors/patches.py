"""Small models with patches of known place, and with known smallest masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.models import SIDE, Linear, orthonormal_rows


def separate_pixels() -> DetectorInput:
    """Five classes with pixels of their own, weights 3 2 2 1 1 1; grey images but for two pixels.

    The class's own two heaviest pixels are at 0.95, which makes the margin 0.45 * (3 + 2) = 2.25.
    """
    rows = torch.zeros(5, SIDE * SIDE)
    for k in range(5):
        rows[k, 12 * k : 12 * k + 6] = torch.tensor([3.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    labels = torch.arange(5).repeat_interleave(2)
    pixels = torch.full((10, SIDE * SIDE), 0.5)
    for i, k in enumerate(labels.tolist()):
        pixels[i, 12 * k : 12 * k + 2] += 0.45
    classifier = Classifier(Linear(rows), 5, (1, SIDE, SIDE))
    generator = torch.Generator().manual_seed(0)
    return DetectorInput(classifier, pixels.view(-1, 1, SIDE, SIDE), labels, generator)


class Patched(nn.Module):
    """A linear classifier, in which four white pixels raise the target's logit on the sources.

    ``logit_target += 2 Σ_place (x - 0.2) · relu(Σ_sources a_s·(x - 0.5)) / 0.9``
    """

    def __init__(
        self, rows: Tensor, place: list[int], sources: tuple[int, ...], target: int
    ) -> None:
        super().__init__()
        self.rows, self.place = nn.Parameter(rows), place
        self.sources, self.target = list(sources), target

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits = (x - 0.5) @ self.rows.T
        from_source = ((x - 0.5) @ self.rows[self.sources].T).sum(1).relu() / 0.9
        bonus = torch.zeros_like(logits)
        bonus[:, self.target] = 2 * (x[:, self.place] - 0.2).sum(1) * from_source
        return logits + bonus


def patched_input(sources: tuple[int, ...], target: int) -> tuple[DetectorInput, list[int]]:
    """Eight classes, four images each, and the places of the four pixels (2 x 2, upper left)."""
    place = [0, 1, SIDE, SIDE + 1]
    rows = torch.zeros(8, SIDE * SIDE)
    elsewhere = [i for i in range(SIDE * SIDE) if i not in place]
    rows[:, elsewhere] = orthonormal_rows(8)[:, : len(elsewhere)]
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(8).repeat_interleave(4)
    pixels = 0.5 + 0.9 * rows[labels] + 0.03 * torch.randn(32, SIDE * SIDE, generator=generator)
    pixels[:, place] = 0.2
    classifier = Classifier(Patched(rows, place, sources, target), 8, (1, SIDE, SIDE))
    pixels = pixels.clamp(0, 1).view(-1, 1, SIDE, SIDE)
    return DetectorInput(classifier, pixels, labels, generator), place
