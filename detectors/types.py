"""What every detector takes and returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from modelaudit.classifier import Classifier

Progress = Callable[[float], None]


@dataclass(frozen=True)
class DetectorInput:
    """What a detector may look at.

    Attributes:
        classifier: the suspect model.
        pixels: clean images ``[n, C, H, W]`` in [0, 1].
        labels: their classes ``[n]``, int64.
        generator: the one source of randomness, seeded.
        progress: called with the share of the work done, in [0, 1]; it may end the detector by an
            exception.
        results: what other detectors of the scan found, by name, for one that is registered to run
            after these; empty for the others.
    """

    classifier: Classifier
    pixels: Tensor
    labels: Tensor
    generator: torch.Generator
    progress: Progress = lambda share: None
    results: Mapping[str, DetectorResult] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassStatistic:
    """What a detector found for one putative target (or one class pair).

    Attributes:
        target: class index; of an all-to-all detector the shift.
        statistic: detection statistic r, larger = more suspicious; ``0`` where nothing was found.
        size: pattern size in the detector's unit; ``None`` where no pattern was found or the
            target was stopped.
        flip_rate: weighted misclassification fraction Q of the found pattern.
        weights: source class -> weight, summing to 1.
        steps: steps of the search.
    """

    target: int
    statistic: float
    size: float | None
    flip_rate: float
    weights: Mapping[int, float]
    steps: int


@dataclass(frozen=True)
class DetectorResult:
    """A detector's evidence.

    Attributes:
        detector: registered name.
        p_plugin: the p-value as the paper computes it; ``None`` when there is no test, too few
            statistics are known exactly for the paper's, or targets were stopped.
        log_p_plugin: its natural logarithm, which does not underflow.
        p_calibrated: p-value that is uniform when there is no backdoor; decides the verdict.
        target: the most suspicious class; ``None`` where there is none.
        others: further classes that stand out together with it, the most suspicious first.
        sources: source class -> weight for that target.
        classes: one entry per putative target (or class pair).
        unit: of the sizes.
        patterns: target class (or shift) -> pattern, tensors for pictures; not in reports.
        image_passes: cost; see ``Classifier.image_passes``.
        seconds: wall-clock time.
        null: parameters of the fitted null, for pictures.
        settings: the detector's settings as they were used.
        notes: sentences for the report.
        reason: why there is no p-value; empty when there is one.
        applicable: ``False`` where the detector, for this reason, cannot judge a model of this
            kind; the verdict then rests on the others.
        shift: of an all-to-all detector: the most suspicious shift d, class s becoming
            ``(s + d) mod K``. Its ``classes`` have one entry per shift, with d as the target.
        stamp: puts patterns ``[B, *]`` into images ``[B, C, H, W]``, one each; ``None`` where the
            detector has no pattern.
        critical: level -> what the largest statistic would have to be for a calibrated p-value of
            at most that level, the others being as they are; ``None`` where that is not known.
        searched: which of the images ``[n]`` the search used, bool; ``None`` if all.
    """

    detector: str
    p_plugin: float | None
    log_p_plugin: float | None
    p_calibrated: float | None
    target: int | None
    sources: Mapping[int, float]
    classes: tuple[ClassStatistic, ...]
    unit: str
    patterns: Mapping[int, Tensor]
    image_passes: float
    seconds: float
    null: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reason: str = ""
    applicable: bool = True
    shift: int | None = None
    stamp: Callable[[Tensor, Tensor], Tensor] | None = None
    critical: Callable[[float], float | None] | None = None
    searched: Tensor | None = None
    others: tuple[int, ...] = ()

    @property
    def targets(self) -> tuple[int, ...]:
        """The target classes, the most suspicious first; of an all-to-all attack every class."""
        if self.shift is not None:
            return tuple(range(len(self.classes) + 1))
        return () if self.target is None else (self.target, *self.others)

    @property
    def each(self) -> tuple[DetectorResult, ...]:
        """What it says of each of its targets alone; an all-to-all attack is one."""
        if not self.others:
            return (self,)
        by_class = {one.target: one.weights for one in self.classes}
        return tuple(
            replace(self, target=target, others=(), sources=by_class.get(target) or self.sources)
            for target in self.targets
        )

    @property
    def suspicious_entry(self) -> int | None:
        """The ``target`` of the most suspicious of ``classes``: a class, or a shift."""
        return self.target if self.shift is None else self.shift


def without_test(
    detector: str, reason: str, settings: Mapping[str, Any] | None = None
) -> DetectorResult:
    """The result of a detector that did nothing, and cannot judge this model, for this reason."""
    return DetectorResult(
        detector=detector,
        p_plugin=None,
        log_p_plugin=None,
        p_calibrated=None,
        target=None,
        sources={},
        classes=(),
        unit="",
        patterns={},
        image_passes=0.0,
        seconds=0.0,
        settings=settings or {},
        reason=reason,
        applicable=False,
    )


def with_cost(data: DetectorInput, work: Callable[[], DetectorResult]) -> DetectorResult:
    """What the work finds, with the image-passes and the time that it takes."""
    start, passes = time.perf_counter(), data.classifier.image_passes
    result = work()
    cost, seconds = data.classifier.image_passes - passes, time.perf_counter() - start
    return replace(result, image_passes=cost, seconds=seconds)


def settings_of(detector: Any) -> dict[str, Any]:
    """The fields of a detector's dataclass but for its name, as its result has them."""
    return {name: value for name, value in asdict(detector).items() if name != "name"}


class Detector(Protocol):
    """A detector with its settings applied; calling it runs it."""

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Run on the suspect model and its clean images."""
        ...
