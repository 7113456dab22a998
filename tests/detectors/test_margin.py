"""The margin of a class over all others."""

from __future__ import annotations

import torch

from detectors.margin import margins


def test_margin_over_the_best_of_the_others_and_its_gradient() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]], requires_grad=True)
    found = margins(logits, torch.tensor([1, 0]))
    assert found.tolist() == [2, -4]
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.tolist() == [[0, 1, -1], [1, -1, 0]]
