"""The replacement of few pixels, measured by its mask: for patches of any colour and shape."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.embeddings.protocol import Embedding
from detectors.embeddings.sparse import largest_pixels

_TINY = 1e-6
#: No colour under the mask moves by more than this in one step.
COLOUR_STEP = 0.1


class Patch(Embedding):
    """``x (1 - m) + u m`` with the size ``‖m‖₁`` (L-RED paper, Eq. 13): mask and colours.

    A pattern is stored as ``(u m, m)``, C + 1 channels of which the last is the mask. In these the
    image is linear, so that a step of steepest ascent is known. A unit more of mask at pixel i
    gains ``Σ_c max(∂J/∂(um)_ic, 0) + ∂J/∂m_i``, in black or white of every channel; a unit less
    gains ``-Σ_c u_ic ∂J/∂(um)_ic - ∂J/∂m_i``. A step moves the pixels that gain most. The colours
    under the mask may change at no cost; they follow the sign of the gradient.
    """

    name = "patch"
    unit = "pixels of the mask"
    sees = "patches of any colour, shape and place"
    first_step = 0.25
    clean_shape = 8.0

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``m = 0`` ``[rows, C + 1, H, W]``."""
        channels, height, width = input_shape
        return torch.zeros(rows, channels + 1, height, width)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """``x (1 - m) + u m`` (Eq. 13); in [0, 1] up to rounding, which is clipped."""
        return (x * (1 - theta[:, -1:]) + theta[:, :-1]).clamp(0, 1)

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """Move the mask of the k pixels that gain most by δ/k each, at most as sparse steps."""
        mask, slope, mask_slope = theta[:, -1:], gradient[:, :-1], gradient[:, -1:]
        colour = theta[:, :-1] / mask.clamp_min(_TINY)
        colour = (colour + COLOUR_STEP * slope.sign()).clamp(0, 1)
        more = (slope.clamp_min(0).sum(1, keepdim=True) + mask_slope) * (mask < 1)
        less = -((colour * slope).sum(1, keepdim=True) + mask_slope) * (mask > 0)
        move = largest_pixels(torch.maximum(more, less), delta)
        grown = (mask + move * torch.where(more >= less, 1, -1)).clamp(0, 1)
        # What is added is black or white; what is taken away takes its colour along.
        paint = torch.where(grown > mask, (slope > 0).to(colour.dtype), colour)
        return torch.cat((colour * mask + paint * (grown - mask), grown), 1)

    def size(self, theta: Tensor) -> Tensor:
        """``‖m‖₁`` ``[R]``."""
        return theta[:, -1].flatten(1).sum(1)

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """An eighth of the pixels."""
        return input_shape[1] * input_shape[2] / 8
