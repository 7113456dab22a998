"""Pictures of a found pattern: tensors to small PNG files, as data for the report."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from detectors.finding import Finding
from modelaudit.evidence import LARGEST_PICTURE, Picture, PictureKind

#: Lines of the test card on which a pattern is shown that is no image itself: one in so many.
_GRID = 4


def pictures_of(
    finding: Finding, image: Tensor, clean: str, stamped: str, largest: int = LARGEST_PICTURE
) -> tuple[Picture, ...]:
    """The clean image, the stamped one, the difference and the pattern.

    Args:
        image: pixels ``[C, H, W]`` in [0, 1].
        clean, stamped: captions of the first two.
        largest: see :func:`png_of`.
    """
    changed = finding.stamped(image[None])[0]
    difference, factor = amplified(changed - image)
    amplification = f"difference x {factor:.3g}; grey is no change"
    pictures: tuple[tuple[PictureKind, str, Tensor], ...] = (
        ("clean", clean, image),
        ("stamped", stamped, changed),
        ("difference", amplification, difference),
        ("pattern", *_pattern(finding, image)),
    )
    return tuple(
        Picture(kind, caption, base64.b64encode(png_of(pixels, largest)).decode("ascii"))
        for kind, caption, pixels in pictures
    )


def _pattern(finding: Finding, image: Tensor) -> tuple[str, Tensor]:
    """The pattern: itself where it is an image, else what it does to a grid of lines."""
    if finding.theta.shape == image.shape:
        pattern, factor = amplified(finding.theta)
        return f"pattern x {factor:.3g}; grey is no change", pattern
    card = torch.full_like(image, 0.75)
    card[:, ::_GRID] = card[:, :, ::_GRID] = 0.25
    return "pattern applied to a grid", finding.stamped(card[None])[0]


def amplified(change: Tensor) -> tuple[Tensor, float]:
    """A change of pixels on mid-grey, as strong as fits into [0, 1], and its factor (at least 1).

    The factor is 1 where there is no change.
    """
    largest = float(change.abs().max())
    factor = max(1.0, 0.5 / largest) if largest > 0 else 1.0
    return (0.5 + factor * change).clamp(0, 1), factor


def png_of(pixels: Tensor, largest: int = LARGEST_PICTURE) -> bytes:
    """A PNG file of pixels ``[C, H, W]`` in [0, 1]: grey for one channel, else the first three.

    Images are shrunk to ``largest`` pixels on the longer side; none is enlarged.
    """
    pixels = pixels.detach().float().cpu()[: 1 if len(pixels) < 3 else 3]
    height, width = pixels.shape[1:]
    share = largest / max(height, width)
    if share < 1:
        size = (max(1, round(height * share)), max(1, round(width * share)))
        pixels = F.interpolate(pixels[None], size, mode="area")[0]
    values = pixels.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", optimize=True)
    return file.getvalue()
