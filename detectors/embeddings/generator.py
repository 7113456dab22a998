"""What a small convolutional network adds to each image: for triggers that depend on the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.embeddings.protocol import Stamp
from detectors.embeddings.whitened import Whitened, whitening_of
from modelaudit.classifier import Classifier

# Stands for a spread of 0, by which nothing can be divided.
_TINY = 1e-30
#: Random filters of the first layer, and the sides of its and of the second layer's kernels.
FILTERS, FIRST, SECOND = 32, 5, 3
#: Images that the spread of the features is measured on.
_MOST_IMAGES = 128
#: Responses of the first layer that are kept: 256 MiB, 1,700 images of 3x32x32. They are worked out
#: for so many images at a time.
_MOST_VALUES, _PART = 2**26, 16


class Generator(Whitened):
    """``[x + g(x)]_c`` with one small convolutional network g for all images; size: RMS of g(x).

    Not in the L-RED paper: its search (Algorithm 1) with the image change of LIRA (Doan et al.,
    "LIRA: Learnable, imperceptible and robust backdoor attacks", 2021), where a network makes the
    trigger from the image; in Wasserstein Backdoor and input-aware triggers one does as well.

    The first layer of g, random filters with ReLU, stays as it is; the search finds the second, θ:
    ``g(x) = Σ_j θ_j φ_j(x)`` with φ the responses of the first layer in a 3x3 neighbourhood,
    whitened. About 170 coefficients per colour channel are too few to memorise images, and too few
    to imitate the attacker's network: what the search finds is another change that the model takes
    for it.

    Args:
        filters, threshold: of the first layer, ``[F, C, 5, 5]`` and ``[F]``.
        whitening: ``[9 (F + 1), d]``: whitened features are the raw ones times this.
    """

    name = "generator"
    sees = "triggers that a network makes from the image: LIRA, Wasserstein Backdoor, input-aware"
    clean_shape = 6.0

    def __init__(
        self,
        filters: Tensor | None = None,
        threshold: Tensor | None = None,
        whitening: Tensor | None = None,
    ) -> None:
        self._filters, self._threshold, self._whitening = filters, threshold, whitening

    def fit(self, pixels: Tensor, generator: torch.Generator, classifier: Classifier) -> Generator:
        """The embedding for clean images ``[n, C, H, W]``: random filters, whitened features."""
        chosen = torch.randperm(len(pixels), generator=generator)[:_MOST_IMAGES]
        pixels, channels = pixels[chosen.to(pixels.device)], pixels.shape[1]
        filters = torch.randn(FILTERS, channels, FIRST, FIRST, generator=generator).to(pixels)
        threshold = 0.7 * torch.randn(FILTERS, generator=generator).to(pixels)
        # On the images every response has mean 0 and spread 1 before its threshold.
        response = F.conv2d(_padded(pixels, FIRST), filters)
        spread = response.std((0, 2, 3)).clamp_min(_TINY)
        filters = filters / spread.view(-1, 1, 1, 1)
        threshold = threshold - response.mean((0, 2, 3)) / spread
        moment = torch.zeros(())
        for image in pixels.split(1):
            hidden = _padded(_first_layer(image, filters, threshold), SECOND)
            features = F.unfold(hidden, SECOND)[0].double()  # [9 (F + 1), H W]
            moment = moment.to(features) + features @ features.T / features.shape[1] / len(pixels)
        return Generator(filters, threshold, whitening_of(moment).to(pixels))

    def state(self) -> tuple[Tensor, ...]:
        """Filters, threshold and whitening."""
        return self._fitted()

    @property
    def whitening(self) -> Tensor:
        """``[9 (F + 1), d]``."""
        return self._fitted()[2]

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """``[x + g(x)]_c``."""
        return (x + _second_layer(self._hidden(x), self._kernels(theta))).clamp(0, 1)

    def bind(self, pixels: Tensor) -> Stamp:
        """The same; the first layer, which is the same for all patterns, is worked out once.

        Only if its responses fit the memory set aside for them; else anew in every call.
        """
        count, _, height, width = pixels.shape
        values = count * (FILTERS + 1) * (height + SECOND - 1) * (width + SECOND - 1)
        hidden: Tensor | None = None
        if values <= _MOST_VALUES:
            hidden = torch.cat([self._hidden(part) for part in pixels.split(_PART)])

        def stamp(theta: Tensor, row: Tensor, image: Tensor) -> Tensor:
            x, kernels = pixels[image], self._kernels(theta)[row]
            responses = self._hidden(x) if hidden is None else hidden[image]
            return (x + _second_layer(responses, kernels)).clamp(0, 1)

        return stamp

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """A root mean square change of 1/8."""
        return 1 / 8

    def _hidden(self, x: Tensor) -> Tensor:
        """What the second layer is given ``[B, F + 1, H + 2, W + 2]``."""
        # The images of reports and examinations lie on the CPU, wherever the search was.
        filters, threshold, _ = (part.to(x) for part in self._fitted())
        return _padded(_first_layer(x, filters, threshold), SECOND)

    def _kernels(self, theta: Tensor) -> Tensor:
        """The second layer ``[R, 9, C, F + 1]`` of patterns ``[R, C, d]``, by taps."""
        kernels = theta @ self.whitening.to(theta).T
        return kernels.unflatten(2, (-1, SECOND * SECOND)).permute(0, 3, 1, 2)

    def _fitted(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._filters is None or self._threshold is None or self._whitening is None:
            raise ValueError("the generator embedding must be fitted to images first")
        return self._filters, self._threshold, self._whitening


def _first_layer(x: Tensor, filters: Tensor, threshold: Tensor) -> Tensor:
    """``[B, F + 1, H, W]``: the rectified responses, and a constant 1."""
    response = F.relu(F.conv2d(_padded(x, FIRST), filters, threshold))
    return torch.cat((response, torch.ones_like(response[:, :1])), 1)


def _second_layer(hidden: Tensor, kernels: Tensor) -> Tensor:
    """``[B, C, H, W]``: every image's responses, convolved with kernels of its own.

    One product for all taps of the kernels, of which every tap's result is then moved to its place:
    faster on a CPU than a convolution with a group per image.

    Args:
        hidden: ``[B, F + 1, H + 2, W + 2]``.
        kernels: ``[B, 9, C, F + 1]``.
    """
    count, _, height, width = hidden.shape
    channels = kernels.shape[2]
    taps = kernels.flatten(1, 2) @ hidden.flatten(2)
    taps = taps.view(count, SECOND, SECOND, channels, height, width)
    b, i, j, c, y, x = taps.stride()
    # [:, i, j, :, y, x] of this view is [:, i, j, :, y + i, x + j]. The gradient of nine slices
    # instead would be nine tensors of the full size.
    moved = taps.as_strided(
        (count, SECOND, SECOND, channels, height - SECOND + 1, width - SECOND + 1),
        (b, i + y, j + x, c, y, x),
    )
    return sum(tap for row in moved.unbind(1) for tap in row.unbind(1))  # type: ignore[return-value]


def _padded(x: Tensor, side: int) -> Tensor:
    return F.pad(x, (side // 2,) * 4, mode="replicate")
