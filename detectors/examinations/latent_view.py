"""Latent view: how far images with the pattern are from clean ones of the target class.

K. Doan, Y. Lao, P. Li, "Backdoor Attack with Imperceptible Input and Latent Modification" (WB),
NeurIPS 2021, supplement, Table 7: the normalised Wasserstein distance of clean and poisoned samples
of one predicted class. The paper does not say how it is computed; here it is the sliced
Wasserstein-2 distance over random directions, divided by the root mean square deviation of all
clean samples from their mean along the same directions. 0: the same distribution; 1: about as far
apart as the classes are. The directions are not the classifier's weight rows, which WB minimises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detectors.examinations.types import ExaminationInput, Observation, Skipped
from detectors.transport import sliced_wasserstein
from modelaudit.features import penultimate

_DIRECTIONS = 500
_MOST = 1000  # images that are looked at


@dataclass(frozen=True)
class LatentSpace:
    """Random directions in feature space and its scale.

    Attributes:
        directions: unit vectors ``[D, L]``.
        scale: root mean square deviation of the clean samples along them.
    """

    directions: Tensor
    scale: Tensor

    @classmethod
    def of(cls, clean: Tensor, generator: torch.Generator) -> LatentSpace:
        """The space of clean activations ``[N, D]``."""
        directions = torch.randn(clean.shape[1], _DIRECTIONS, generator=generator)
        directions = directions / directions.norm(dim=0)
        scale = (clean @ directions).std(0, correction=0).square().mean().sqrt().clamp_min(1e-12)
        return cls(directions, scale)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Normalised distance of activations ``[A, D]`` and ``[B, D]``, a scalar."""
        return sliced_wasserstein(first, second, self.directions) / self.scale

    def of_halves(self, samples: Tensor, generator: torch.Generator) -> Tensor:
        """Distance of two random halves: what is left of it between equal distributions."""
        one, two = samples[torch.randperm(len(samples), generator=generator)].chunk(2)
        return self.distance(one, two)


@dataclass(frozen=True)
class LatentView:
    """The latent distance of the pattern found.

    Attributes:
        least: images of the target class, and stamped ones, that are worth a distance.
    """

    least: int = 6

    name: ClassVar[str] = "latent-view"
    cannot_see: ClassVar[str] = (
        "whether there is a backdoor at all: it tells whether defences that look at features could "
        "see this one; with few images of the target class the distances are too large"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        return 1.5 * data.clean_count(_MOST)

    def look(self, data: ExaminationInput) -> Observation:
        """Measure the distances."""
        finding, victims = data.require_finding(), data.victims(_MOST)
        clean = data.some_clean(_MOST, of_class=finding.target)
        stamped = finding.stamped(victims.pixels)
        seen = penultimate(data.classifier, torch.cat([clean.pixels, victims.pixels, stamped]))
        sizes = [len(clean), len(victims), len(victims)]
        before, sources, after = seen.activations.split(sizes)
        classes, _, wanted = seen.logits.argmax(1).split(sizes)
        own, moved = before[classes == finding.target], after[wanted == finding.target]
        if min(len(own), len(moved)) < self.least:
            raise Skipped(
                f"it needs at least {self.least} images of the target class and as many that the "
                f"pattern flips; there are {len(own)} and {len(moved)}"
            )
        space = LatentSpace.of(before, data.generator)
        numbers = {
            "stamped": round(float(space.distance(own, moved)), 4),
            "sources": round(float(space.distance(own, sources)), 4),
            "halves": round(float(space.of_halves(own, data.generator)), 4),
        }
        summary = (
            f"images with the pattern are {numbers['stamped']:.2f} class distances from clean "
            f"images of the target class (without it {numbers['sources']:.2f}; halves of the clean "
            f"ones {numbers['halves']:.2f})."
        )
        return Observation(summary, numbers)
