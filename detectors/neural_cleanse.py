"""Neural Cleanse: is one class reached with an abnormally small mask from all others?

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks" (IEEE S&P 2019). It assumes that every class but the target is a source
and that the trigger replaces few pixels; faint triggers over the whole image, warps and those of
few source classes it is not made for.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from detectors.embeddings import EMBEDDINGS
from detectors.gamma import Array
from detectors.lred import PRIORS
from detectors.mask_search import MaskSearch, MaskSearchConfig
from detectors.order_statistic import order_statistic_test
from detectors.rows import Rows
from detectors.search import SearchResult
from detectors.summary import class_statistics, search_notes, smallest_patterns
from detectors.types import DetectorInput, DetectorResult

#: Makes the median absolute deviation of normal data their standard deviation.
MAD_TO_DEVIATION = 1.4826
#: The paper's threshold of the anomaly index.
ANOMALOUS = 2.0


@dataclass(frozen=True)
class NeuralCleanse:
    """Neural Cleanse with its settings.

    The paper's own test is an anomaly index (:func:`mad_outlier`), which is reported and decides
    nothing. The p-values are those of the L-RED paper's test on the same masks, r_t = 1 / ‖m‖₁.

    Attributes:
        name: registered name.
        success: share of the images that a mask must send to the target, in (0, 1]; 0.99 as in the
            paper, which with fewer than 100 images means all of them.
        schedule: ``paper``: the public code's settings: at most 1,000 steps, learning rate 0.1,
            patience 5, random masks in [0, 1] and a first price of 1e-3. ``fast`` (default): 80
            steps, 0.5, 2, [0, 0.2] and 1e-2. In both, a step sees all images at once, where the
            public code takes batches of 32 from thousands, and images of the target class, which
            it uses too, are left out.
        learning_rate: of Adam; 0 means the schedule's default.
        patience: steps after which the price of the mask changes; 0 means the schedule's default.
        steps: the largest number of steps; 0 means the schedule's default.
        prior: whether the calibrated p-value takes the null's spread from what is known of the
            masks of clean models too (the prior of L-RED's patches, whose size is the same).
    """

    name: str = "neural-cleanse"
    success: float = 0.99
    schedule: Literal["fast", "paper"] = "fast"
    learning_rate: float = 0.0
    patience: int = 0
    steps: int = 0
    prior: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.success <= 1:
            raise ValueError(f"success is {self.success}; it must lie in (0, 1]")
        for setting in ("learning_rate", "patience", "steps"):
            value = getattr(self, setting)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{setting} is {value}; it must be finite and not negative")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Search the smallest mask per putative target and test the smallest of them."""
        start, passes = time.perf_counter(), data.classifier.image_passes
        classifier, patch = data.classifier, EMBEDDINGS["patch"]
        rows = Rows.per_target(data.labels.to(classifier.device), classifier.num_classes)
        search = MaskSearch(classifier, data.pixels, data.labels, self._search_config())
        found = search.run(rows, rows.uniform_weights(), data.generator, data.progress)
        statistics = np.reciprocal(found.size.double().cpu().numpy())
        prior = PRIORS["patch"] if self.prior else None
        test = order_statistic_test(statistics, prior=prior, several=True)
        classes = class_statistics(found, rows, statistics)
        best = classes[test.index] if test.index is not None else None
        anomaly, sentence = _anomaly(found)
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=best.target if best else None,
            others=tuple(classes[one].target for one in test.others),
            sources=best.weights if best else {},
            classes=classes,
            unit=patch.unit,
            patterns=smallest_patterns(found, rows),
            image_passes=classifier.image_passes - passes,
            seconds=time.perf_counter() - start,
            null=test.null | anomaly,
            settings=self._settings_used(),
            notes=(sentence, *search_notes(found, rows, classifier.num_classes, test.count)),
            reason=test.reason,
            critical=test.critical,
            stamp=patch.apply,
        )

    def _settings_used(self) -> dict[str, object]:
        """The settings with the schedule's defaults filled in, for the report."""
        used = asdict(self._search_config())
        return {"schedule": self.schedule, "prior": self.prior, **used}

    def _search_config(self) -> MaskSearchConfig:
        """The search's settings, with the schedule's defaults filled in."""
        paper = self.schedule == "paper"
        patience = self.patience or (5 if paper else 2)
        return MaskSearchConfig(
            success=self.success,
            steps=self.steps or (1000 if paper else 80),
            learning_rate=self.learning_rate or (0.1 if paper else 0.5),
            first_mask=1.0 if paper else 0.2,
            first_cost=1e-3 if paper else 1e-2,
            cost_factor=1.5,
            patience=patience,
            stop_after=5 * patience,
        )


@dataclass(frozen=True)
class MadOutlier:
    """The paper's outlier test on the mask sizes.

    Attributes:
        index: (median - smallest) / mad; ``None`` where it does not exist.
        median: of the sizes.
        mad: their median absolute deviation times 1.4826.
        reason: why there is no index.
    """

    index: float | None
    median: float
    mad: float
    reason: str = ""


def mad_outlier(sizes: Array) -> MadOutlier:
    """Anomaly index of the smallest size (paper, section IV-C).

    The paper takes the absolute deviation but flags only masks below the median, so the sign can
    stay. Infinite sizes (no mask found) count as larger than the median as long as half are finite.
    """
    if np.isfinite(sizes).sum() < 3:
        return MadOutlier(None, math.nan, math.nan, "fewer than 3 masks were found")
    median = float(np.median(sizes))
    if not math.isfinite(median):
        return MadOutlier(None, median, math.nan, "no mask was found for half of the classes")
    mad = MAD_TO_DEVIATION * float(np.median(np.abs(sizes - median)))
    if not 1e-9 * median < mad < math.inf:
        return MadOutlier(None, median, mad, "half of the masks or more have no finite spread")
    return MadOutlier((median - float(sizes.min())) / mad, median, mad)


def _anomaly(found: SearchResult) -> tuple[dict[str, float], str]:
    """The paper's own test: its numbers and a sentence."""
    outlier = mad_outlier(found.size.double().cpu().numpy())
    if outlier.index is None:
        return {}, f"no anomaly index: {outlier.reason}"
    numbers = {"anomaly_index": outlier.index, "median": outlier.median, "mad": outlier.mad}
    side = "above" if outlier.index > ANOMALOUS else "not above"
    return numbers, (
        f"the paper's anomaly index of the smallest mask is {outlier.index:.2f}, {side} its "
        f"threshold {ANOMALOUS:g}; the verdict uses the calibrated p-value"
    )
