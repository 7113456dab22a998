"""What embeddings have in common whose pattern is a sum of features of the image itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detectors.embeddings.ascent import along_gradient
from detectors.embeddings.protocol import Embedding

#: Directions of the features with less than this share of the largest second moment are left out:
#: almost constant on images, they would need enormous coefficients.
_SMALLEST_SHARE = 1e-4


class Whitened(Embedding):
    """``[x + g(x)]_c`` with ``g_c(x) = Σ_j θ_cj φ_j(x)``; size: the root mean square of g(x).

    The features φ_j are whitened on the clean images, ``mean φ_i φ_j = δ_ij``, so that the root
    mean square of g(x) over images, pixels and channels is ``‖θ‖₂ / √C`` and the steepest step is
    along the gradient, as for the additive pattern.
    """

    unit = "RMS change, pixels in [0, 1]"
    first_step = 0.01

    @property
    def whitening(self) -> Tensor:
        """``[raw features, d]``: whitened features are the raw ones times this.

        Raises:
            ValueError: the embedding was not fitted to images.
        """
        raise NotImplementedError

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``θ = 0`` ``[rows, C, d]``, in whitened coordinates."""
        return torch.zeros(rows, input_shape[0], self.whitening.shape[1])

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """``θ + δ ∇J / ‖∇J‖``, as in Eq. 5."""
        return along_gradient(theta, gradient, delta, self.size(gradient))

    def size(self, theta: Tensor) -> Tensor:
        """``‖θ‖₂ / √C``, the root mean square of g(x), ``[R]``."""
        return theta.flatten(1).norm(dim=1) / math.sqrt(theta.shape[1])


def whitening_of(moment: Tensor) -> Tensor:
    """What makes features with these second moments ``[n, n]`` white, ``[n, d]`` with d <= n."""
    values, vectors = torch.linalg.eigh(moment)
    kept = values > values[-1] * _SMALLEST_SHARE
    return vectors[:, kept] / values[kept].sqrt()
