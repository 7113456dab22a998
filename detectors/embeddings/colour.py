"""A change of colours, the same everywhere: for filters, and for tinted or faded images."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor

from detectors.embeddings.protocol import Stamp
from detectors.embeddings.whitened import Whitened, whitening_of
from modelaudit.classifier import Classifier

#: Degree of the polynomial in a pixel's three colours, and in the brightness of grey images.
DEGREE, DEGREE_OF_GREY = 2, 3


class Colour(Whitened):
    """``[x + g(x)]_c``, g a polynomial in the pixel's colours, the same everywhere; size: its RMS.

    Not in the L-RED paper: its search (Algorithm 1) with the image changes of photo filters (Liu et
    al., "ABS: Scanning neural networks for back-doors by artificial brain stimulation", CCS 2019)
    and of shifts in a colour space (Jiang et al., "Color Backdoor", CVPR 2023). Polynomials of
    degree 2 hold every mixture of the colours and, nearly, the tone curves of such filters.

    ``g_c(x) = Σ_j θ_cj φ_j(x)`` with the monomials φ_j of the pixel's colours, whitened.

    Args:
        whitening: ``[monomials, d]``: whitened features are the raw ones times this.
    """

    name = "colour"
    sees = "changes of colours alone: filters, tinted or faded images"
    clean_shape = 10.0
    reaches_all = False  # most classes are not known by their colours

    def __init__(self, whitening: Tensor | None = None) -> None:
        self._whitening = whitening

    def fit(self, pixels: Tensor, generator: torch.Generator, classifier: Classifier) -> Colour:
        """The embedding for clean images ``[n, C, H, W]``: whitened monomials."""
        features = _monomials(pixels).transpose(0, 1).flatten(1).double()  # [monomials, n H W]
        moment = features @ features.T / features.shape[1]
        return Colour(whitening_of(moment).to(pixels))

    def state(self) -> tuple[Tensor, ...]:
        """The whitening."""
        return (self.whitening,)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """``[x + g(x)]_c``."""
        return _changed(x, _monomials(x), self._coefficients(theta))

    def bind(self, pixels: Tensor) -> Stamp:
        """The same; the monomials, which are the same for all patterns, are worked out once."""
        monomials = _monomials(pixels)

        def stamp(theta: Tensor, row: Tensor, image: Tensor) -> Tensor:
            return _changed(pixels[image], monomials[image], self._coefficients(theta)[row])

        return stamp

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """A root mean square change of 1/4: filters are meant to be seen."""
        return 1 / 4

    def _coefficients(self, theta: Tensor) -> Tensor:
        """Of the monomials ``[R, C, monomials]``."""
        # The images of reports and examinations lie on the CPU, wherever the search was.
        return theta @ self.whitening.to(theta).T

    @property
    def whitening(self) -> Tensor:
        """``[monomials, d]``."""
        if self._whitening is None:
            raise ValueError("the colour embedding must be fitted to images first")
        return self._whitening


def _monomials(x: Tensor) -> Tensor:
    """1 and the products of the channels of images ``[B, C, H, W]``, up to the degree.

    Returns:
        ``[B, monomials, H, W]``.
    """
    channels = x.unbind(1)
    degree = DEGREE_OF_GREY if len(channels) == 1 else DEGREE
    products = [torch.ones_like(channels[0])]
    for factors in range(1, degree + 1):
        for chosen in combinations_with_replacement(channels, factors):
            products.append(torch.stack(chosen).prod(0))
    return torch.stack(products, 1)


def _changed(x: Tensor, monomials: Tensor, coefficients: Tensor) -> Tensor:
    """``[x + g(x)]_c`` for every image's own coefficients ``[B, C, m]``."""
    return (x + (coefficients @ monomials.flatten(2)).view_as(x)).clamp(0, 1)
