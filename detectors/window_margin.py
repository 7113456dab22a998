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

import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detectors.embeddings import EMBEDDINGS
from detectors.gamma import Array, SpreadPrior
from detectors.lred import FEW_CLASSES, PRIOR_WEIGHT
from detectors.margin import margins
from detectors.order_statistic import MIN_STATISTICS, OrderStatisticTest, order_statistic_test
from detectors.rows import first_of_each_class
from detectors.stamping import images_per_batch
from detectors.types import (
    ClassStatistic,
    DetectorInput,
    DetectorResult,
    Progress,
    without_test,
)
from modelaudit.memory import BatchSize

#: How far the steps move a pixel in total: from anywhere to 0 or 1.
_TRAVEL = 1.5
#: A window counts if the median class gains more than this share of what it gains in the best one.
_LEAST = 0.1
#: Of the ratios of clean models; see fixtures/results/window-margin.md.
PRIOR = SpreadPrior(shape=7.0, weight=PRIOR_WEIGHT)
#: With fewer classes than ``FEW_CLASSES``; see fixtures/results/few-classes.md.
PRIOR_OF_FEW = SpreadPrior(shape=5.0, weight=PRIOR_WEIGHT)


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
        begin, passes = time.perf_counter(), data.classifier.image_passes
        if not len(data.labels):
            return without_test(self.name, "there are no clean images")
        if data.classifier.num_classes < MIN_STATISTICS:
            few = f"with {data.classifier.num_classes} classes none of them is in the middle"
            return without_test(self.name, f"{few}; the comparison needs {MIN_STATISTICS}")
        chosen = self._chosen(data.labels)
        search = _Search(data, chosen, self.share, self.places, self.steps)
        gains, flips = search.everywhere(data.progress)
        # A class without images of others has no gain.
        every = torch.arange(len(gains), device=search.labels.device)
        compared = search.others(every).any(1).nonzero().flatten().cpu().numpy()
        ratios = ratios_of(gains[compared])
        test, note = self._test(ratios, flips[compared])
        statistics, places = np.zeros(len(gains)), np.zeros(len(gains), dtype=int)
        statistics[compared] = np.nan_to_num(ratios, posinf=0.0).max(1)
        places[compared] = ratios.argmax(1)
        found = () if test.index is None else (test.index, *test.others)
        targets = [int(compared[index]) for index in found]
        sources = {target: _all_but(target, search.labels) for target in targets}
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=targets[0] if targets else None,
            others=tuple(targets[1:]),
            sources=sources[targets[0]] if targets else {},
            classes=tuple(
                ClassStatistic(
                    target=t,
                    statistic=value,
                    size=value or None,
                    flip_rate=float(flips[t, places[t]]),
                    weights=sources.get(t, {}),
                    steps=self.steps,
                )
                for t, value in enumerate(statistics.tolist())
            ),
            unit="times the gain of the median class in that window; larger is more suspicious",
            patterns={target: search.pattern(target, int(places[target])) for target in targets},
            image_passes=data.classifier.image_passes - passes,
            seconds=time.perf_counter() - begin,
            null=test.null,
            settings={name: value for name, value in asdict(self).items() if name != "name"},
            notes=(note,) if note else (),
            reason=test.reason,
            critical=None if note else test.critical,
            stamp=EMBEDDINGS["patch"].apply,
            searched=chosen,
        )

    def _chosen(self, labels: Tensor) -> Tensor:
        """Mask ``[n]`` of one image each of some classes, evenly spread; of few classes more."""
        each = max(1, self.images // len(labels.unique()))
        first = first_of_each_class(labels, each).nonzero().flatten()
        spread = torch.linspace(0, len(first) - 1, min(self.images, len(first))).round().long()
        return torch.zeros_like(labels, dtype=torch.bool).index_fill_(0, first[spread], True)

    def _test(self, ratios: Array, flips: Array) -> tuple[OrderStatisticTest, str]:
        """The test, and a sentence if what stands out turns no image: then it is no pattern.

        Args:
            ratios, flips: ``[classes, windows]``.
        """
        if not np.isfinite(ratios).all():
            return OrderStatisticTest(None, reason="some margins are not finite"), ""
        prior, largest = PRIOR if len(ratios) >= FEW_CLASSES else PRIOR_OF_FEW, ratios.max(1)
        test = order_statistic_test(largest, prior=prior if self.prior else None, several=True)
        if test.index is None or test.alone is None:
            return test, ""
        turned = [flips[one, ratios[one].argmax()] > 0 for one in (test.index, *test.others)]
        if all(turned):
            return test, ""
        if turned[0]:
            alone = test.alone.p(float(largest[test.index]))
            return replace(test, p_calibrated=alone, others=()), ""
        note = "the most suspicious window turns no image into its class, and is no pattern"
        return replace(test, p_calibrated=1.0, others=()), note


def _all_but(target: int, labels: Tensor) -> dict[int, float]:
    """Every class of the images but the target -> its share."""
    sources = sorted(set(labels.tolist()) - {target})
    return {source: 1 / len(sources) for source in sources}


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
        chosen: mask of the images ``[n]``.
        share, places, steps: see :class:`WindowMargin`.
    """

    def __init__(
        self, data: DetectorInput, chosen: Tensor, share: float, places: int, steps: int
    ) -> None:
        self.classifier = data.classifier
        device = data.classifier.device
        self.pixels, self.labels = data.pixels[chosen].to(device), data.labels[chosen].to(device)
        _, height, width = data.classifier.input_shape
        self.windows = windows_of(height, width, share, places).to(device)
        # The same for all classes and places, so that none has an easier start.
        shape = data.classifier.input_shape
        self.start = torch.rand(shape, generator=data.generator).to(device)
        self.steps = steps
        self.batch = BatchSize(images_per_batch(data.classifier))
        self.clean = self._clean_margins()

    def everywhere(self, progress: Progress) -> tuple[Array, Array]:
        """Mean gain of the margin over the images of other classes, and the share of them that
        are taken for the class, for every class and window ``[K, windows]``."""
        classes, windows = self.classifier.num_classes, len(self.windows)
        rows = torch.arange(classes * windows, device=self.pixels.device)
        gains, flips = [], []
        for part in rows.split(max(1, self.batch.images // len(self.pixels))):
            targets = part // windows
            margin, _ = self._ascended(targets, self.windows[part % windows])
            others = self.others(targets)
            gains.append(_mean(margin - self.clean[targets], others))
            flips.append(_mean((margin > 0).float(), others))
            progress((int(part[-1]) + 1) / len(rows))
        found = [torch.cat(one).view(classes, windows).double().cpu() for one in (gains, flips)]
        return found[0].numpy(), found[1].numpy()

    def pattern(self, target: int, place: int) -> Tensor:
        """What a window shows in the end, as :class:`detectors.embeddings.patch.Patch` has it."""
        window = self.windows[place][None]
        _, theta = self._ascended(self.labels.new_tensor([target]), window)
        return torch.cat((theta * window, window), 1)[0].cpu()

    def others(self, targets: Tensor) -> Tensor:
        """Which images are of other classes than each row's ``[R, m]``."""
        return self.labels != targets[:, None]

    def _clean_margins(self) -> Tensor:
        """Margins of every class for the images as they are ``[K, m]``."""
        logits = self.classifier.logits(self.pixels, self.batch)
        images, classes = logits.shape
        targets = torch.arange(classes, device=logits.device).repeat_interleave(images)
        return margins(logits.repeat(classes, 1), targets).view(classes, images)

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
        found = theta.new_zeros(len(targets), len(self.pixels))
        gradient = torch.zeros_like(theta)
        pairs = self.others(targets).nonzero()
        for row, image in (part.unbind(1) for part in pairs.split(self.batch.images)):
            mask = windows[row]
            stamped = self.pixels[image] * (1 - mask) + theta[row] * mask
            with torch.set_grad_enabled(differentiated):
                logits = self.classifier(stamped.requires_grad_(differentiated))
                margin = margins(logits, targets[row])
            found[row, image] = margin.detach()
            if differentiated:
                (slope,) = torch.autograd.grad(margin.sum(), stamped)
                gradient.index_add_(0, row, slope * mask)
        return found, gradient


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of each row's values ``[R, m]`` where ``where`` is true."""
    return values.where(where, 0.0).sum(1) / where.sum(1).clamp_min(1)
