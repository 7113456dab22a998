"""Small models whose minimal patterns are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.examinations import Labelled
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


def dormant_unit() -> nn.Sequential:
    """Two classes by the brightness of the left pixel; the right pixel, if lit, says class 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    first, head = model[1], model[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 9.0]]))
        first.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        head.weight.copy_(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
        head.bias.zero_()
    return model.eval()


def left_pixels() -> Labelled:
    """Twenty images of class 0 and thirty of class 1 of that model, without the trigger."""
    left = torch.cat([torch.linspace(0, 0.3, 20), torch.linspace(0.8, 1, 30)])
    return Labelled(torch.stack([left, torch.zeros(50)], 1).view(50, 1, 1, 2), (left > 0.5).long())
