"""An image-wide additive pattern, measured in L2: the paper's own embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detectors.embeddings.ascent import along_gradient
from detectors.embeddings.protocol import Embedding


class Additive(Embedding):
    """``[x + v]_c`` with the size ``‖v‖₂`` (L-RED paper, Eq. 1); pixels in [0, 1]."""

    name = "additive"
    unit = "L2 norm, pixels in [0, 1]"
    sees = "faint patterns spread over the image: global, chessboard, blended, sinusoidal"
    first_step = 0.1
    clean_shape = 20.0

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``v = 0`` ``[rows, C, H, W]`` (Algorithm 1, line 2)."""
        return torch.zeros(rows, *input_shape)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """``[x + v]_c``, the clipping to [0, 1] (Eq. 1)."""
        return (x + theta).clamp(0, 1)

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """``v + δ ∇J / ‖∇J‖₂`` (Eq. 5)."""
        return along_gradient(theta, gradient, delta, self.size(gradient))

    def size(self, theta: Tensor) -> Tensor:
        """``‖v‖₂`` over pixels and channels, ``[R]``."""
        return theta.flatten(1).norm(dim=1)

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """A root mean square change of 1/8."""
        return math.sqrt(math.prod(input_shape)) / 8
