"""Small models whose minimal patterns are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.types import DetectorInput
from modelaudit.classifier import Classifier

SIDE = 8  # images are [1, SIDE, SIDE], grey 0.5 plus the class's own direction


class Linear(nn.Module):
    """``logits = A (x - 0.5)`` with one row of A per class."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.rows.T


def orthonormal_rows(classes: int, seed: int = 0) -> Tensor:
    """``[classes, SIDE²]`` with orthonormal rows."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(SIDE * SIDE, classes, generator=generator))
    return q.T.contiguous()


def linear_input(rows: Tensor, beta: float, per_class: int = 2) -> DetectorInput:
    """Images ``0.5 + beta a_s``: every class s wins by ``beta`` when the rows are orthonormal."""
    classes = len(rows)
    labels = torch.arange(classes).repeat_interleave(per_class)
    pixels = (0.5 + beta * rows[labels]).view(-1, 1, SIDE, SIDE)
    classifier = Classifier(Linear(rows), classes, (1, SIDE, SIDE))
    return DetectorInput(classifier, pixels, labels, torch.Generator().manual_seed(0))


class Planted(nn.Module):
    """A linear classifier with a backdoor: a trigger direction that works on the sources.

    ``logit_target += 40 softplus(u·(x - 0.5) + Σ_sources a_s·(x - 0.5) - 1.05)``
    """

    def __init__(self, rows: Tensor, trigger: Tensor, sources: list[int], target: int) -> None:
        super().__init__()
        self.rows, self.trigger = nn.Parameter(rows), nn.Parameter(trigger)
        self.sources, self.target = sources, target

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).flatten(1)
        logits = x @ self.rows.T
        reached = x @ self.trigger + x @ self.rows[self.sources].sum(0) - 1.05
        key = (20 * reached).exp().log1p() / 20
        bonus = torch.zeros_like(logits)
        bonus[:, self.target] = 40 * key
        return logits + bonus


class Shifted(nn.Module):
    """A linear classifier with an all-to-all backdoor: the trigger raises the class after.

    ``logits += 40 softplus(u·(x - 0.5) - 0.6) roll(logits)``
    """

    def __init__(self, rows: Tensor, trigger: Tensor) -> None:
        super().__init__()
        self.rows, self.trigger = nn.Parameter(rows), nn.Parameter(trigger)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).flatten(1)
        logits = x @ self.rows.T
        key = (20 * (x @ self.trigger - 0.6)).exp().log1p() / 20
        return logits + 40 * key[:, None] * logits.roll(1, 1)
