"""Stop the targets whose pattern has grown far beyond the smallest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from detectors.gamma import Array

#: So few targets are not raced: each says much of the null.
FEWEST_RACED = 13
#: One target in so many is a leader, and as many at least as the test needs to be known.
ONE_IN, FEWEST_LEADERS = 8, 4


@dataclass(frozen=True)
class Race:
    """When a search stops a target, and what is then known of it (not in the L-RED paper).

    Once m patterns have been found, a target whose pattern has grown beyond ``factor`` times the
    m-th smallest of them is stopped. Patterns nearly always grow as the search goes on (a step may
    lead back), so its pattern is taken to be larger than that bound, and its statistic r = 1/size
    to be smaller than the reciprocal. All targets take their steps at once, and only size counts:
    none is stopped for being late. Shortening the last steps lowers the bound in the end, so that
    what was stopped lies beyond it all the more.

    Attributes:
        leaders: m.
        factor: larger than 1.
    """

    leaders: int
    factor: float

    @classmethod
    def of(cls, targets: int, factor: float) -> Race | None:
        """The race of so many targets; ``None`` where they are too few."""
        if targets < FEWEST_RACED:
            return None
        return cls(max(FEWEST_LEADERS, targets // ONE_IN), factor)

    def largest(self, size: Tensor) -> float:
        """The size beyond which targets are stopped; infinite while too few have a pattern.

        Args:
            size: of the patterns that were found ``[R]``, infinite elsewhere.
        """
        return self.factor * float(size.kthvalue(self.leaders).values)

    def bound(self, r: Array) -> Array:
        """The same for statistics ``[..., n]``: smaller ones than this ``[..., 1]`` are unknown."""
        rank = r.shape[-1] - self.leaders
        bound: Array = np.partition(r, rank, -1)[..., rank, None] / self.factor
        return bound
