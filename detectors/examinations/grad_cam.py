"""Grad-CAM: where the model looks when an image carries the pattern.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, "Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization" (ICCV 2017), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.examinations.types import ExaminationInput, Observation, Skipped
from modelaudit.classifier import Classifier
from modelaudit.spatial_map import last_spatial_map

_TINY = 1e-12
_MOST = 64  # images in which the pattern is tried


def heatmaps(classifier: Classifier, pixels: Tensor, target: int) -> Tensor:
    """Heatmaps ``[n, H, W]`` in [0, 1] for class ``target``; the largest value of each is 1.

    Eqs. 1 and 2: ``ReLU(Σ_k α_k A_k)`` with the maps A and their mean gradients α, enlarged
    bilinearly. A map without positive evidence is zero.

    Raises:
        FeaturesUnavailable: see :func:`modelaudit.spatial_map.last_spatial_map`.
    """
    logits, maps = last_spatial_map(classifier, pixels)
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * maps).sum(1, keepdim=True).relu().detach()
    heat = F.interpolate(heat, pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0].cpu()
    return heat / heat.flatten(1).amax(1).clamp_min(_TINY)[:, None, None]


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM pictures for the pattern found.

    Attributes:
        images: that are looked at, at most.
    """

    images: int = 8

    name: ClassVar[str] = "grad-cam"
    cannot_see: ClassVar[str] = (
        "anything finer than the model's last map of places; in a transformer that map lies in "
        "front of the attention and says little"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        return _MOST / 2 + self.images

    def look(self, data: ExaminationInput) -> Observation:
        """Draw the pictures: ``heatmaps`` ``[n, H, W]`` of ``stamped`` ``[n, C, H, W]``."""
        finding, victims = data.require_finding(), data.victims(_MOST)
        stamped = finding.stamped(victims.pixels)
        flipped = data.classifier.predict(stamped) == finding.target
        if not flipped.any():
            raise Skipped("the pattern flips none of the clean images of its source classes")
        stamped = stamped[flipped][: self.images]
        change = (stamped - victims.pixels[flipped][: self.images]).abs().amax(1)
        heat = heatmaps(data.classifier, stamped, finding.target)
        touched = change >= change.flatten(1).amax(1)[:, None, None] / 2
        share = (heat * touched).sum() / heat.sum().clamp_min(_TINY)
        area = touched.float().mean()
        numbers = {
            "images": len(stamped),
            "heat_on_pattern": round(float(share), 4),
            "area_of_pattern": round(float(area), 4),
        }
        summary = (
            f"{share:.0%} of the heat lies where the pattern changes the image most, which is "
            f"{area:.0%} of it."
        )
        return Observation(summary, numbers, {"heatmaps": heat, "stamped": stamped.cpu()})
