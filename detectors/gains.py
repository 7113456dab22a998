"""Does one class gain more than the others by a change of the images?

What :mod:`detectors.window_margin`, :mod:`detectors.wave_margin` and
:mod:`detectors.embedding_margin` have in common. Each of them has a family of changes. The *gain*
of a class t by a change is the mean, over clean images of other classes, of what is added to its
margin over all others, ``logit_t - max_{k≠t} logit_k``. How much a change of that family can do
depends on the model, but alike for all classes. Their gains are therefore counted in those of the
median class, and the largest of these ratios is tested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors.gamma import Array, SpreadPrior
from detectors.lred import FEW_CLASSES
from detectors.margin import all_margins
from detectors.order_statistic import MIN_STATISTICS, OrderStatisticTest, order_statistic_test
from detectors.rows import first_of_each_class
from detectors.types import ClassStatistic, DetectorInput, DetectorResult, without_test
from modelaudit.memory import BatchSize


@dataclass(frozen=True)
class Priors:
    """What is known of the spread of clean models' ratios.

    Attributes:
        usual: of models with at least ``FEW_CLASSES`` classes.
        few: of models with fewer.
    """

    usual: SpreadPrior
    few: SpreadPrior

    def of(self, classes: int) -> SpreadPrior:
        """For so many classes."""
        return self.usual if classes >= FEW_CLASSES else self.few


@dataclass(frozen=True)
class Gained:
    """What the classes that are compared gained.

    Attributes:
        ratios: each one's largest gain, in those of the median class, at least 0; not finite where
            the margins were not ``[c]``.
        flips: share of the images of other classes that this change turns into the class ``[c]``.
    """

    ratios: Array
    flips: Array


class CleanImages:
    """Some clean images, and how far every class is ahead or behind on each.

    Args:
        most: images at most, as many of each class.
        batch: how many images make a batch.

    Attributes:
        chosen: mask of them among all ``[n]``.
        pixels, labels: theirs, ``[m, C, H, W]`` and ``[m]``.
        margins: of every class for every one of them ``[m, K]``.
        others: which of them are of other classes than each class ``[m, K]``.
        compared: the classes that there are images of others for ``[c]``.
    """

    def __init__(self, data: DetectorInput, most: int, batch: BatchSize) -> None:
        device = data.classifier.device
        self.chosen = evenly_chosen(data.labels, most)
        self.pixels = data.pixels[self.chosen].to(device)
        self.labels = data.labels[self.chosen].to(device)
        self.margins = all_margins(data.classifier.logits(self.pixels, batch))
        classes = torch.arange(data.classifier.num_classes, device=device)
        self.others = self.labels[:, None] != classes
        self.compared = self.others.any(0).nonzero().flatten()

    @property
    def behind(self) -> float:
        """How far the median class is behind on the images of others, in logits."""
        return float(mean_where(-self.margins, self.others, 0)[self.compared].median())

    def targets_of(self, test: OrderStatisticTest) -> list[int]:
        """The classes that stand out in a test of those compared, the most suspicious first."""
        found = () if test.index is None else (test.index, *test.others)
        return [int(self.compared[index]) for index in found]


def evenly_chosen(labels: Tensor, most: int) -> Tensor:
    """Mask ``[n]`` of one image each of some classes, evenly spread; of few classes more."""
    each = max(1, most // len(labels.unique()))
    first = first_of_each_class(labels, each).nonzero().flatten()
    spread = torch.linspace(0, len(first) - 1, min(most, len(first))).round().long()
    return torch.zeros_like(labels, dtype=torch.bool).index_fill_(0, first[spread], True)


def cannot_compare(name: str, data: DetectorInput) -> DetectorResult | None:
    """The result where no class can be compared with the others; ``None`` where they can."""
    if not len(data.labels):
        return without_test(name, "there are no clean images")
    if data.classifier.num_classes < MIN_STATISTICS:
        few = f"with {data.classifier.num_classes} classes none of them is in the middle"
        return without_test(name, f"{few}; the comparison needs {MIN_STATISTICS}")
    return None


def compare(ratios: Array, priors: Priors | None) -> OrderStatisticTest:
    """The test of ratios ``[c]``."""
    if not np.isfinite(ratios).all():
        return OrderStatisticTest(None, reason="some margins are not finite")
    prior = priors.of(len(ratios)) if priors else None
    return order_statistic_test(ratios, prior=prior, several=True)


def without_what_turns_none(
    test: OrderStatisticTest, gained: Gained, what: str
) -> tuple[OrderStatisticTest, str]:
    """The test, and a sentence if what stands out turns no image: then it is no pattern.

    Args:
        what: the most suspicious change is called.
    """
    if test.index is None or test.alone is None:
        return test, ""
    turned = [gained.flips[one] > 0 for one in (test.index, *test.others)]
    if all(turned):
        return test, ""
    if turned[0]:
        alone = test.alone.p(float(gained.ratios[test.index]))
        return replace(test, p_calibrated=alone, others=()), ""
    note = f"the most suspicious {what} turns no image into its class, and is no pattern"
    return replace(test, p_calibrated=1.0, others=()), note


def result_of(
    name: str,
    images: CleanImages,
    gained: Gained,
    tested: tuple[OrderStatisticTest, str],
    steps: int,
    **more: Any,
) -> DetectorResult:
    """The detector's evidence but for its cost.

    Args:
        tested: what :func:`without_what_turns_none` left.
        steps: of the search for each.
        more: further attributes of the result.
    """
    test, note = tested
    compared, classes = images.compared.cpu().numpy(), images.margins.shape[1]
    statistics, flips = np.zeros(classes), np.zeros(classes)
    statistics[compared] = np.nan_to_num(gained.ratios, posinf=0.0)
    flips[compared] = gained.flips
    targets = images.targets_of(test)
    sources = {target: _all_but(target, images.labels) for target in targets}
    return DetectorResult(
        detector=name,
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
                flip_rate=float(flips[t]),
                weights=sources.get(t, {}),
                steps=steps,
            )
            for t, value in enumerate(statistics.tolist())
        ),
        null=test.null,
        notes=(note,) if note else (),
        reason=test.reason,
        critical=None if note else test.critical,
        searched=images.chosen,
        image_passes=0.0,
        seconds=0.0,
        **more,
    )


def in_those_of_the_median(gains: Array) -> Array:
    """Gains ``[c]`` in those of the median class; at least 0. All are 0 where it gains nothing.

    What is not finite is passed on.
    """
    median = float(np.median(gains))
    return np.where(median <= 0, 0.0, gains / (median or 1.0)).clip(min=0)


def mean_where(values: Tensor, where: Tensor, dim: int) -> Tensor:
    """Mean along one dimension of the values where ``where`` is true; 0 where it nowhere is.

    Args:
        where: bool, of the same shape, or one that is expanded to it.
    """
    number = where.expand_as(values).sum(dim)
    return values.where(where, 0.0).sum(dim) / number.clamp_min(1)


def _all_but(target: int, labels: Tensor) -> dict[int, float]:
    """Every class of the images but the target -> its share."""
    sources = sorted(set(labels.tolist()) - {target})
    return {source: 1 / len(sources) for source in sources}
