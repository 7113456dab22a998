"""A smooth displacement of the pixels, measured in pixels: for warping triggers."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.embeddings.ascent import along_gradient
from detectors.embeddings.protocol import Embedding


class Warp(Embedding):
    """``x(p + f(p))`` with a smooth flow f; size: root mean square of ‖f(p)‖₂ in pixels.

    Not in the L-RED paper: its search (Algorithm 1) with the image change of WaNet (Nguyen, Tran,
    "WaNet - Imperceptible Warping-based Backdoor Attack", 2021, section 3.2: bilinear sampling at
    displaced places). Where WaNet interpolates a coarse grid of k x k displacements, the flow here
    is the sum of the k x k lowest frequencies of a cosine transform: as smooth, and as the basis is
    orthonormal, the size is the norm ‖θ‖₂ of the coefficients and the steepest step is along the
    gradient.

    Args:
        frequencies: k, per axis.
    """

    name = "warp"
    unit = "RMS displacement in pixels"
    sees = "warps: WaNet"
    first_step = 0.05
    clean_shape = 10.0
    reaches_all = False  # what is moved must be there

    def __init__(self, frequencies: int = 8) -> None:
        self.frequencies = frequencies

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``θ = 0`` ``[rows, 2, k, k]``: the coefficients of the flow along x and y."""
        _, height, width = input_shape
        k = self.frequencies
        return torch.zeros(rows, 2, min(k, height), min(k, width))

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The images sampled bilinearly at p + f(p); the border goes on outside."""
        height, width = x.shape[2:]
        rows = cosine_basis(height, theta.shape[2]).to(theta)
        columns = cosine_basis(width, theta.shape[3]).to(theta)
        flow = rows @ theta @ columns.T  # [B, 2, H, W], in pixels
        y = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
        place_x = torch.arange(width, device=x.device, dtype=x.dtype) + flow[:, 0]
        place_y = y + flow[:, 1]
        place = torch.stack((_to_unit(place_x, width), _to_unit(place_y, height)), 3)
        sampled = F.grid_sample(x, place, padding_mode="border", align_corners=True)
        return sampled.clamp(0, 1)  # rounding

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """``θ + δ ∇J / ‖∇J‖₂``, as in Eq. 5."""
        return along_gradient(theta, gradient, delta, self.size(gradient))

    def size(self, theta: Tensor) -> Tensor:
        """``‖θ‖₂``, the root mean square displacement, ``[R]``."""
        return theta.flatten(1).norm(dim=1)

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """A displacement by a sixteenth of the longer side."""
        return max(input_shape[1:]) / 16


@functools.lru_cache(maxsize=16)
def cosine_basis(length: int, count: int) -> Tensor:
    """The first ``count`` cosines on ``length`` points ``[length, count]`` (DCT-II).

    Each has mean square 1 and they are orthogonal.
    """
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    basis = torch.cos(math.pi * place[:, None] * torch.arange(count))
    basis[:, 1:] *= math.sqrt(2)
    return basis.float()


def _to_unit(place: Tensor, length: int) -> Tensor:
    """Pixel indices to [-1, 1], as ``grid_sample`` wants them."""
    return place * (2 / max(length - 1, 1)) - 1
