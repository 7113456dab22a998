"""A pattern that a detector found, as what follow-up examinations and reports need of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.types import DetectorResult

#: Source classes whose weight is below this share of the largest one are not named as sources.
SOURCE_SHARE = 0.25
_AT_ONCE = 32  # images


@dataclass(frozen=True)
class Finding:
    """A putative backdoor: one target class, or one shift of all, and the pattern that leads there.

    Attributes:
        detector: registered name of the detector that found it.
        target: class index; of an all-to-all attack the shift.
        sources: the source classes that the pattern was found for, the heaviest first.
        size: the pattern's size in ``unit``.
        unit: of the size.
        theta: the pattern ``[*]``.
        stamp: puts patterns ``[B, *]`` into images ``[B, C, H, W]`` in [0, 1].
    """

    detector: str
    target: int
    sources: tuple[int, ...]
    size: float | None
    unit: str
    theta: Tensor
    stamp: Callable[[Tensor, Tensor], Tensor]

    @torch.no_grad()
    def stamped(self, images: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` with the pattern, on the images' device, in [0, 1]."""
        theta = self.theta.to(images.device)
        # In parts: a generator's features of 1,000 images of 3x224x224 would take 12 GB.
        parts = images.split(_AT_ONCE)
        return torch.cat(
            [self.stamp(part, theta.expand(len(part), *theta.shape)) for part in parts]
        )


def finding_of(result: DetectorResult) -> Finding | None:
    """The most suspicious target's (or shift's) pattern; ``None`` where there is none."""
    target = result.suspicious_entry
    if target is None or result.stamp is None or target not in result.patterns:
        return None
    heaviest = max(result.sources.values(), default=0.0)
    sources = sorted(result.sources, key=lambda s: (-result.sources[s], s))
    size = next((c.size for c in result.classes if c.target == target), None)
    return Finding(
        detector=result.detector,
        target=target,
        sources=tuple(s for s in sources if result.sources[s] >= SOURCE_SHARE * heaviest),
        size=size,
        unit=result.unit,
        theta=result.patterns[target],
        stamp=result.stamp,
    )
