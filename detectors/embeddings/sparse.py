"""The additive change of few pixels, measured in L1: for patches."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.embeddings.protocol import Embedding

#: No pixel moves by more than this in one step, so that a long step spreads over several pixels.
MAX_PIXEL_STEP = 0.25


class Sparse(Embedding):
    """``[x + v]_c`` with the size ``Σ_pixels max_channel |v|``: pixels that change, by how much.

    The same search as :class:`~detectors.embeddings.additive.Additive` in another geometry (not in
    the paper). Steepest ascent in this size moves only the pixels in which the gradient, summed
    over channels in absolute value, is largest, all channels of a pixel by the same amount. It
    therefore stays sparse and finds the few pixels of a patch, which an L2 search smears out.
    """

    name = "sparse"
    unit = "pixels x change, pixels in [0, 1]"
    sees = "patches and single pixels: BadNets, local square"
    first_step = 0.25
    clean_shape = 8.0

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``v = 0`` ``[rows, C, H, W]``."""
        return torch.zeros(rows, *input_shape)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """``[x + v]_c``, clipped to [0, 1] (Eq. 1)."""
        return (x + theta).clamp(0, 1)

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """Move the k pixels of largest gradient by δ/k ≤ ``MAX_PIXEL_STEP`` each, v in [-1, 1]."""
        sign = gradient.sign()
        # A change of ±1 already turns any pixel black or white; beyond it nothing is to be gained.
        room = (theta * sign < 1).to(gradient.dtype)
        move = largest_pixels((gradient.abs() * room).sum(1, keepdim=True), delta)
        return (theta + move * sign * room).clamp(-1, 1)

    def size(self, theta: Tensor) -> Tensor:
        """``Σ_pixels max_channel |v|``, ``[R]``."""
        return theta.abs().amax(1).flatten(1).sum(1)

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """An eighth of the pixels."""
        return input_shape[1] * input_shape[2] / 8


def largest_pixels(gain: Tensor, delta: Tensor) -> Tensor:
    """A step of length ``delta`` ``[R]`` shared by the pixels of largest gain, ``[R, 1, H, W]``.

    Args:
        gain: ``[R, 1, H, W]``; pixels without a positive gain do not move.

    Returns:
        δ/k ≤ ``MAX_PIXEL_STEP`` at the k pixels that gain most, 0 elsewhere.
    """
    flat = gain.flatten(1)
    k = (delta / MAX_PIXEL_STEP).ceil().clamp(1, flat.shape[1])
    rank = flat.argsort(1, descending=True).argsort(1)
    chosen = (rank < k[:, None]) & (flat > 0)
    return (chosen * (delta / k)[:, None]).view_as(gain)
