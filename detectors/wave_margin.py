"""How far can a faint wave over the whole image lead the model to class t?

Ours. Yin, Gontijo Lopes, Shlens, Cubuk, Gilmer, "A Fourier perspective on model robustness in
computer vision" (NeurIPS 2019) add one wave after the other to all images and map what that does
to the accuracy. Here the map is made for every class: how much does its margin over all others gain
by this wave? There is nothing to search for: all waves are tried, so that a class that is easy to
reach by a pattern with thousands of free pixels does not hide the target. Some classes gain by most
waves alike (on CIFAR-10 frogs, which fine textures resemble). Sinusoids (SIG), chessboards and
faint patterns that resemble a wave lead to the target where others do not. What counts is therefore
what a class gains by its best wave beyond what three in four waves do for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.embeddings import EMBEDDINGS
from detectors.gains import (
    CleanImages,
    Gained,
    Priors,
    cannot_compare,
    compare,
    in_those_of_the_median,
    mean_where,
    result_of,
    without_what_turns_none,
)
from detectors.gamma import SpreadPrior
from detectors.lred import PRIOR_WEIGHT
from detectors.margin import all_margins
from detectors.stamping import images_per_batch
from detectors.types import (
    DetectorInput,
    DetectorResult,
    settings_of,
    with_cost,
    without_test,
)
from modelaudit.memory import BatchSize

#: Shifts of every wave, evenly spaced over its length; quarters.
PHASES = 4
#: Up to so many waves along a side every number is tried, and up to so many every second; then each
#: is half as much again as the last.
_EVERY, _EVERY_SECOND = 4, 16
#: The first size, and how often it is doubled while the median class gains less than this share of
#: what it is behind on the images of others.
SIZE, DOUBLINGS, ENOUGH = 0.06, 1, 0.15
#: What a class gains by most waves is no trigger's work: this share of them.
MOST_WAVES = 0.75
#: Of the ratios of clean models, which some waves lead to one class far more than to others; see
#: fixtures/results/margins.md.
PRIOR = SpreadPrior(3.0, PRIOR_WEIGHT)
PRIORS = Priors(usual=PRIOR, few=PRIOR)


@dataclass(frozen=True)
class WaveMargin:
    """The test with its settings.

    Attributes:
        name: registered name.
        size: root mean square of a wave, pixels in [0, 1], whose amplitude is √2 times that; 0
            means 0.06, or 0.12 where the median class gains next to nothing by that.
        images: clean images at most, as many of each class; those of class t are left out.
        prior: as that of :class:`detectors.mm_bd.MmBd`.
    """

    name: str = "wave-margin"
    size: float = 0.0
    images: int = 13
    prior: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.size <= 1:
            raise ValueError(f"size is {self.size}; it must lie in [0, 1]")
        if self.images < 2:
            raise ValueError(f"images is {self.images}; at least 2")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Try every wave, and test the class that gains most by one."""
        return cannot_compare(self.name, data) or with_cost(data, lambda: self._result(data))

    def _result(self, data: DetectorInput) -> DetectorResult:
        """The result but for its cost."""
        batch = BatchSize(images_per_batch(data.classifier))
        images = CleanImages(data, self.images, batch)
        waves = all_waves(*data.classifier.input_shape[1:])
        if not len(waves):
            return without_test(self.name, "an image of one pixel has no waves")
        size, doublings = self.size or SIZE, 0 if self.size else DOUBLINGS
        gains, flips = self._gains(data, images, waves, size, batch)
        while doublings and float(gains.amax(0).median()) < ENOUGH * images.behind:
            size, doublings = 2 * size, doublings - 1
            gains, flips = self._gains(data, images, waves, size, batch)
        gains = gains[:, images.compared].double()
        largest, best = gains.max(0)  # [c]
        beyond = largest - gains.quantile(MOST_WAVES, 0)
        ratios = in_those_of_the_median(beyond.cpu().numpy())
        gained = Gained(ratios, flips[best, images.compared].double().cpu().numpy())
        test = compare(ratios, PRIORS if self.prior else None)
        tested = without_what_turns_none(test, gained, "wave")
        place = dict(zip(images.compared.tolist(), best.tolist(), strict=True))
        channels, *side = data.classifier.input_shape
        return result_of(
            self.name,
            images,
            gained,
            tested,
            1,
            unit="times what the median class gains by its best wave; larger is more suspicious",
            patterns={
                t: size * drawn(waves[place[t]][None], *side).repeat(channels, 1, 1)
                for t in images.targets_of(tested[0])
            },
            settings=settings_of(self) | {"size": size},
            stamp=EMBEDDINGS["additive"].apply,
        )

    def _gains(
        self, data: DetectorInput, images: CleanImages, waves: Tensor, size: float, batch: BatchSize
    ) -> tuple[Tensor, Tensor]:
        """Gain of every class by every wave, and the share of the images of other classes that are
        then taken for it ``[waves, K]``.

        The root mean square over these images, a loss counting as 0: where the images of one source
        class alone have a trigger, the few that gain much count for more.
        """
        gains, flips, others = [], [], images.others
        parts = waves.split(max(1, batch.images // len(images.pixels)))
        for done, part in enumerate(parts, start=1):
            pictures = drawn(part, *images.pixels.shape[2:]).to(images.pixels)
            waved = (images.pixels + size * pictures[:, None, None]).clamp(0, 1).flatten(0, 1)
            margins = all_margins(data.classifier.logits(waved, batch))
            margins = margins.unflatten(0, (len(part), -1))  # [waves, m, K]
            gained = (margins - images.margins).clamp(min=0)
            gains.append(mean_where(gained.square(), others, 1).sqrt())
            flips.append(mean_where((margins > 0).float(), others, 1))
            data.progress(done / len(parts))
        return torch.cat(gains), torch.cat(flips)


def all_waves(height: int, width: int) -> Tensor:
    """All waves over an image of this size: how many times down and to the right, and the shift.

    Both are whole numbers of times; what goes to the left has a negative one. Of the finest, two
    pixels long, both directions are the same, and some shifts are zero everywhere.

    Returns:
        ``[waves, 3]``, the shift in lengths of the wave.
    """
    waves = []
    for down in _numbers(height):
        for right in _numbers(width):
            finest = (2 * down == height) + (2 * right == width)
            alike = (2 * down in (0, height)) and (2 * right in (0, width))  # no other component
            for sign in (1, -1) if down and right and not finest else (1,):
                for phase in range(PHASES):
                    if down + right and not (alike and (finest + phase) % 2):
                        waves.append((down, sign * right, phase / PHASES))
    return torch.tensor(waves).view(-1, 3)


def drawn(waves: Tensor, height: int, width: int) -> Tensor:
    """Pictures ``[w, height, width]`` of waves ``[w, 3]``, with mean square 1."""
    y, x = ((torch.arange(side) + 0.5) / side for side in (height, width))
    down, right, shift = waves.unbind(1)
    turns = down[:, None, None] * y[:, None] + right[:, None, None] * x + shift[:, None, None]
    picture = torch.cos(2 * math.pi * turns)
    return picture / picture.square().mean((1, 2), keepdim=True).sqrt()


def _numbers(side: int) -> list[int]:
    """How many waves there are along a side: from none to one for two pixels."""
    finest, numbers = side // 2, [0]
    while (last := numbers[-1]) < finest:
        step = 1 if last < _EVERY else 2 if last < _EVERY_SECOND else last // 2
        numbers.append(min(last + step, finest))
    return numbers
