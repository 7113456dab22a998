"""What a search looks for: which classes are to become which, one row per pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class Rows:
    """What to search for: one row per pattern (R rows, K classes).

    Attributes:
        goals: ``[R, K]``: the class that images of each source class are to become.
        support: ``[R, K]`` bool: the possible source classes of each row.
    """

    goals: Tensor
    support: Tensor

    def __len__(self) -> int:
        return len(self.goals)

    def __getitem__(self, rows: Tensor | slice) -> Rows:
        return Rows(self.goals[rows], self.support[rows])

    @property
    def targets(self) -> Tensor:
        """The putative target class ``[R]``; of a row that shifts all classes by d, d."""
        return self.goals[:, 0]

    @classmethod
    def per_target(cls, labels: Tensor, num_classes: int) -> Rows:
        """One row per class t, all other classes that have images as possible sources (Eq. 3).

        A class is left out if no other class has images.
        """
        present = torch.zeros(num_classes, dtype=torch.bool, device=labels.device)
        present[labels] = True
        targets = torch.arange(num_classes, device=labels.device)
        support = present & ~one_hot(targets, num_classes).bool()
        goals = targets[:, None].expand(-1, num_classes)
        return cls(goals, support)[support.any(1)]

    @classmethod
    def per_pair(cls, labels: Tensor, num_classes: int) -> Rows:
        """One row per class pair (s, t), s the only source (P-RED; Eq. 2)."""
        rows = cls.per_target(labels, num_classes)
        row, sources = rows.support.nonzero(as_tuple=True)
        return cls(rows.goals[row], one_hot(sources, num_classes).bool())

    @classmethod
    def per_shift(cls, labels: Tensor, num_classes: int) -> Rows:
        """One row per shift d = 1 ... K - 1: every class s is to become (s + d) mod K."""
        classes = torch.arange(num_classes, device=labels.device)
        goals = (classes + classes[1:, None]) % num_classes
        present = torch.zeros_like(goals, dtype=torch.bool)
        present[:, labels] = True
        return cls(goals, present)

    def thinned(self, most: int, generator: torch.Generator) -> Rows:
        """The rows with at most ``most`` possible sources each, a random choice for every row."""
        if (self.support.sum(1) <= most).all():
            return self
        order = torch.rand(self.support.shape, generator=generator).to(self.support.device)
        rank = order.masked_fill(~self.support, torch.inf).argsort(1).argsort(1)
        return Rows(self.goals, self.support & (rank < most))

    def uniform_weights(self) -> Tensor:
        """``w⁽⁰⁾`` ``[R, K]``: uniform over the possible sources."""
        return self.support / self.support.sum(1, keepdim=True).clamp_min(1)


def first_of_each_class(labels: Tensor, number: int) -> Tensor:
    """Mask ``[n]`` of the first ``number`` images of every class."""
    before = one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1)
    return before <= number


def broadcastable(values: Tensor, theta: Tensor) -> Tensor:
    """One value per row ``[R]``, shaped to broadcast against the rows' patterns ``[R, *]``."""
    return values.view(-1, *[1] * (theta.dim() - 1))
