"""How far can a small window of the image, whatever it shows, lead the model to class t?

Ours. As in MM-BD (:mod:`detectors.mm_bd`) the margin of class t over all others is maximised, but
within one window of clean images that are otherwise left alone, as an adversarial patch is (Brown,
Mané, Roy, Abadi, Gilmer, "Adversarial patch", arXiv:1712.09665). How much a window can do in a
clean model depends on its place, because the model looks at some more than at others, but that
holds for all classes alike. A trigger of many pixels at one place, as Trojaning's is, makes one
class gain more there than the others do. Searches that grow a pattern from nothing (L-RED, Neural
Cleanse) do not find it, because a few of its pixels do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detectors.embeddings import EMBEDDINGS
from detectors.gains import (
    CleanImages,
    Gained,
    Priors,
    cannot_compare,
    compare,
    mean_where,
    result_of,
    without_what_turns_none,
)
from detectors.gamma import Array, SpreadPrior
from detectors.lred import PRIOR_WEIGHT
from detectors.margin import margins
from detectors.stamping import images_per_batch
from detectors.types import DetectorInput, DetectorResult, Progress, settings_of, with_cost
from modelaudit.memory import BatchSize

#: How far the steps move a pixel in total: from anywhere to 0 or 1.
_TRAVEL = 1.5
#: A window counts if the median class gains more than this share of what it gains in the best one.
_LEAST = 0.1
#: Of the ratios of clean models; see fixtures/results/window-margin.md.
PRIOR = SpreadPrior(shape=7.0, weight=PRIOR_WEIGHT)
#: With few classes: see fixtures/results/few-classes.md.
PRIORS = Priors(usual=PRIOR, few=SpreadPrior(shape=5.0, weight=PRIOR_WEIGHT))


@dataclass(frozen=True)
class WindowMargin:
    """The search with its settings.

    Attributes:
        name: registered name.
        share: of the image's height and of its width that a window has, in (0, 1].
        places: windows along each side, evenly spaced.
        images: clean images at most, as many of each class; those of class t are left out.
        steps: of ascent along the sign of the gradient; their length falls linearly to 0.
        prior: as that of :class:`detectors.mm_bd.MmBd`.
    """

    name: str = "window-margin"
    share: float = 0.36
    places: int = 4
    images: int = 13
    steps: int = 4
    prior: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must lie in (0, 1]")
        for setting, least in (("places", 1), ("images", 2), ("steps", 1)):
            if getattr(self, setting) < least:
                raise ValueError(f"{setting} is {getattr(self, setting)}; at least {least}")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Search the largest margin of every class in every window, and test the largest ratio."""
        return cannot_compare(self.name, data) or with_cost(data, lambda: self._result(data))

    def _result(self, data: DetectorInput) -> DetectorResult:
        """The result but for its cost."""
        search = _Search(data, self.images, self.share, self.places, self.steps)
        gains, flips = search.everywhere(data.progress)
        images, compared = search.images, search.images.compared.cpu().numpy()
        ratios = ratios_of(gains[compared])
        places = ratios.argmax(1)
        gained = Gained(ratios.max(1), flips[compared, places])
        test = compare(gained.ratios, PRIORS if self.prior else None)
        tested = without_what_turns_none(test, gained, "window")
        place = dict(zip(compared.tolist(), places.tolist(), strict=True))
        return result_of(
            self.name,
            images,
            gained,
            tested,
            self.steps,
            unit="times the gain of the median class in that window; larger is more suspicious",
            patterns={t: search.pattern(t, place[t]) for t in images.targets_of(tested[0])},
            settings=settings_of(self),
            stamp=EMBEDDINGS["patch"].apply,
        )


def ratios_of(gains: Array) -> Array:
    """Gains ``[classes, windows]`` in those of the median class in the same window; at least 0.

    A window in which the median class gains little says little: 0 for all classes. What is not
    finite is passed on.
    """
    median = np.median(gains, 0)
    useful = ~(median <= _LEAST * max(median.max(), 0.0))
    with np.errstate(invalid="ignore"):
        return np.where(useful, gains / np.where(useful, median, 1.0), 0.0).clip(min=0)


def windows_of(height: int, width: int, share: float, places: int) -> Tensor:
    """Masks ``[places * places, 1, height, width]`` of windows, 1 inside and 0 outside."""

    def along(side: int) -> Tensor:
        length = max(1, round(share * side))
        room = side - length
        starts = torch.linspace(0, room, places) if places > 1 else torch.tensor([room / 2])
        starts = starts.round()[:, None]
        place = torch.arange(side)
        return ((place >= starts) & (place < starts + length)).float()

    rows, columns = along(height), along(width)
    masks = rows[:, None, :, None] * columns[None, :, None, :]
    return masks.reshape(-1, 1, height, width)


class _Search:
    """Ascents of margins in windows of some clean images.

    Args:
        images, share, places, steps: see :class:`WindowMargin`.
    """

    def __init__(
        self, data: DetectorInput, images: int, share: float, places: int, steps: int
    ) -> None:
        self.classifier = data.classifier
        device, shape = data.classifier.device, data.classifier.input_shape
        self.batch = BatchSize(images_per_batch(data.classifier))
        self.images = CleanImages(data, images, self.batch)
        self.windows = windows_of(*shape[1:], share, places).to(device)
        # The same for all classes and places, so that none has an easier start.
        self.start = torch.rand(shape, generator=data.generator).to(device)
        self.steps = steps

    def everywhere(self, progress: Progress) -> tuple[Array, Array]:
        """Mean gain of the margin over the images of other classes, and the share of them that
        are taken for the class, for every class and window ``[K, windows]``."""
        classes, windows = self.classifier.num_classes, len(self.windows)
        rows = torch.arange(classes * windows, device=self.start.device)
        gains, flips = [], []
        for part in rows.split(max(1, self.batch.images // len(self.images.pixels))):
            targets = part // windows
            margin, _ = self._ascended(targets, self.windows[part % windows])
            others = self.images.others.T[targets]
            gains.append(mean_where(margin - self.images.margins.T[targets], others, 1))
            flips.append(mean_where((margin > 0).float(), others, 1))
            progress((int(part[-1]) + 1) / len(rows))
        found = [torch.cat(one).view(classes, windows).double().cpu() for one in (gains, flips)]
        return found[0].numpy(), found[1].numpy()

    def pattern(self, target: int, place: int) -> Tensor:
        """What a window shows in the end, as :class:`detectors.embeddings.patch.Patch` has it."""
        window = self.windows[place][None]
        _, theta = self._ascended(self.images.labels.new_tensor([target]), window)
        return torch.cat((theta * window, window), 1)[0].cpu()

    def _ascended(self, targets: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Margins of the rows' classes for all images after the last step ``[R, m]``, and what
        the windows show ``[R, C, H, W]``. Images of the class itself have a margin of 0."""
        theta = self.start.repeat(len(targets), 1, 1, 1)
        for step in range(self.steps):
            _, gradient = self._margins(theta, targets, windows, differentiated=True)
            length = _TRAVEL * 2 / (self.steps + 1) * (1 - step / self.steps)
            theta = (theta + length * gradient.sign()).clamp(0, 1)
        return self._margins(theta, targets, windows, differentiated=False)[0], theta

    def _margins(
        self, theta: Tensor, targets: Tensor, windows: Tensor, differentiated: bool
    ) -> tuple[Tensor, Tensor]:
        """The margins ``[R, m]``, and the gradient of each row's sum ``[R, C, H, W]``."""
        return self.batch.within_memory(
            lambda: self._in_batches(theta, targets, windows, differentiated)
        )

    def _in_batches(
        self, theta: Tensor, targets: Tensor, windows: Tensor, differentiated: bool
    ) -> tuple[Tensor, Tensor]:
        found = theta.new_zeros(len(targets), len(self.images.pixels))
        gradient = torch.zeros_like(theta)
        pairs = self.images.others.T[targets].nonzero()
        for row, image in (part.unbind(1) for part in pairs.split(self.batch.images)):
            mask = windows[row]
            stamped = self.images.pixels[image] * (1 - mask) + theta[row] * mask
            with torch.set_grad_enabled(differentiated):
                logits = self.classifier(stamped.requires_grad_(differentiated))
                margin = margins(logits, targets[row])
            found[row, image] = margin.detach()
            if differentiated:
                (slope,) = torch.autograd.grad(margin.sum(), stamped)
                gradient.index_add_(0, row, slope * mask)
        return found, gradient
