"""An example of a detector in a package of its own: which class do meaningless images become?

A backdoored class often attracts images that show nothing. For every class t the statistic is the
mean probability of t over images of one random colour each; the largest is tested as L-RED's are.
It is an example, not a detector to rely on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from detectors.order_statistic import order_statistic_test
from detectors.registry import Entry
from detectors.types import ClassStatistic, DetectorInput, DetectorResult


@dataclass(frozen=True)
class Bias:
    """The settings; an instance is the detector.

    Attributes:
        name: registered name.
        images: meaningless images.
    """

    name: str = "example-bias"
    images: int = 64

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images is {self.images}; it must be at least 1")

    @torch.no_grad()
    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Mean probabilities of all classes, and the test of the largest."""
        begin, passes = time.perf_counter(), data.classifier.image_passes
        channels, height, width = data.classifier.input_shape
        colours = torch.rand(self.images, channels, 1, 1, generator=data.generator)
        images = colours.expand(-1, -1, height, width).to(data.classifier.device)
        means = data.classifier(images).softmax(1).mean(0).double().cpu()
        test = order_statistic_test(means.numpy())
        data.progress(1.0)
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=test.index,
            sources={},
            classes=tuple(
                ClassStatistic(target, mean, None, 0.0, {}, 1)
                for target, mean in enumerate(means.tolist())
            ),
            unit="mean probability over meaningless images",
            patterns={},
            image_passes=data.classifier.image_passes - passes,
            seconds=time.perf_counter() - begin,
            null=test.null,
            settings={"images": self.images},
            reason=test.reason,
            critical=test.critical,
        )


ENTRY = Entry(Bias, {}, "example: the class that meaningless images become")
