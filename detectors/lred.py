"""L-RED: how small a change, applied alike to images of other classes, makes the model say t?

Xiang, Miller, Kesidis, "L-RED: Efficient post-training detection of imperceptible backdoor attacks
without access to the training set" (ICASSP 2021). Three independent parts: an embedding
(:mod:`detectors.embeddings`), the search (:mod:`detectors.search`, Algorithm 1) and the test
(:mod:`detectors.order_statistic`, Sec. 3.2). U-RED and P-RED, which the paper compares with, are
settings of the same code.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from detectors.embeddings import EMBEDDINGS
from detectors.order_statistic import OrderStatisticTest, order_statistic_test
from detectors.search import PatternSearch, Rows, SearchConfig, SearchResult
from detectors.types import ClassStatistic, DetectorInput, DetectorResult


@dataclass(frozen=True)
class LRed:
    """L-RED with its settings.

    Attributes:
        name: registered name.
        embedding: a name in :data:`detectors.embeddings.EMBEDDINGS`; the paper's is ``additive``.
        weights: ``entropy`` (Eqs. 6-8) or ``uniform`` (U-RED).
        sources: ``all`` classes at once (Eq. 3) or ``pairs``: every class pair on its own (P-RED,
            Eq. 2). The null of ``pairs`` leaves out all pairs with the suspicious target.
        pi: misclassification fraction π to reach, in (0, 1); 0.9 as in the paper.
        schedule: ``fast`` (default): the first step is the embedding's own, later ones grow with
            the pattern, and the last is shortened to the boundary Q = π. ``paper``: Algorithm 1 to
            the letter, constant steps of δ = 1e-4.
        delta: length of the first step, in the unit of the size; 0 means the schedule's default.
        growth: step length as a share of the pattern's size; fast schedule only.
        refine: halvings of the last step; fast schedule only.
        tau_max: steps after which a target is given up (the paper leaves τ_max open); 0 means the
            schedule's default: 64 (fast: a pattern has then grown over the whole image) or
            100,000 (paper).
    """

    name: str = "l-red"
    embedding: str = "additive"
    weights: Literal["entropy", "uniform"] = "entropy"
    sources: Literal["all", "pairs"] = "all"
    pi: float = 0.9
    schedule: Literal["fast", "paper"] = "fast"
    delta: float = 0.0
    growth: float = 0.2
    refine: int = 4
    tau_max: int = 0

    def __post_init__(self) -> None:
        if self.embedding not in EMBEDDINGS:
            known = ", ".join(EMBEDDINGS)
            raise ValueError(f"embedding is {self.embedding!r}; it must be one of: {known}")
        if not 0 < self.pi < 1:
            raise ValueError(f"pi is {self.pi}; it must lie between 0 and 1")
        for setting in ("delta", "growth", "refine", "tau_max"):
            value = getattr(self, setting)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{setting} is {value}; it must be finite and not negative")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Estimate a pattern per putative target and test the smallest."""
        start, passes = time.perf_counter(), data.classifier.image_passes
        embedding = EMBEDDINGS[self.embedding]
        labels, num_classes = data.labels.to(data.classifier.device), data.classifier.num_classes
        rows = (Rows.per_target if self.sources == "all" else Rows.per_pair)(labels, num_classes)
        search = PatternSearch(
            data.classifier, data.pixels, data.labels, embedding, self._search_config()
        )
        found = search.run(rows, data.progress)
        statistics = np.reciprocal(found.size.double().cpu().numpy())
        test = order_statistic_test(statistics, rows.targets.cpu().numpy())
        classes = _class_statistics(found, rows, statistics)
        best = classes[test.index] if test.index is not None else None
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=best.target if best else None,
            sources=best.weights if best else {},
            classes=classes,
            unit=embedding.unit,
            patterns=_smallest_patterns(found, rows),
            image_passes=data.classifier.image_passes - passes,
            seconds=time.perf_counter() - start,
            null=_null(test),
            settings=self._settings_used(),
            notes=_notes(found, rows, num_classes),
            reason=test.reason,
        )

    def _settings_used(self) -> dict[str, object]:
        """The settings with the schedule's defaults filled in, for the report."""
        config = self._search_config()
        used = {name: getattr(config, name) for name in ("delta", "growth", "refine", "tau_max")}
        return {name: value for name, value in (asdict(self) | used).items() if name != "name"}

    def _search_config(self) -> SearchConfig:
        """The search's settings, with the schedule's defaults filled in."""
        paper = self.schedule == "paper"
        default_delta = 1e-4 if paper else EMBEDDINGS[self.embedding].first_step
        return SearchConfig(
            pi=self.pi,
            delta=self.delta or default_delta,
            growth=0.0 if paper else self.growth,
            tau_max=self.tau_max or (100_000 if paper else 64),
            entropy_weights=self.weights == "entropy",
            refine=0 if paper else self.refine,
        )


def _class_statistics(
    found: SearchResult, rows: Rows, statistics: np.ndarray
) -> tuple[ClassStatistic, ...]:
    """One entry per row, as plain numbers."""
    rates = (found.weights * found.flips).sum(1).tolist()
    columns = zip(
        rows.targets.tolist(),
        statistics.tolist(),
        found.size.tolist(),
        rates,
        found.weights.tolist(),
        rows.support.tolist(),
        found.steps.tolist(),
        strict=True,
    )
    return tuple(
        ClassStatistic(
            target=target,
            statistic=statistic,
            size=size if np.isfinite(size) else None,
            flip_rate=rate,
            weights={s: w for s, (w, on) in enumerate(zip(weights, support, strict=True)) if on},
            steps=steps,
        )
        for target, statistic, size, rate, weights, support, steps in columns
    )


def _smallest_patterns(found: SearchResult, rows: Rows) -> dict[int, Tensor]:
    """Target -> its smallest pattern."""
    patterns: dict[int, Tensor] = {}
    for row in found.size.argsort().tolist():
        patterns.setdefault(int(rows.targets[row]), found.theta[row].cpu())
    return patterns


def _null(test: OrderStatisticTest) -> dict[str, float]:
    if test.shape is None or test.scale is None:
        return {}
    return {"shape": test.shape, "scale": test.scale}


def _notes(found: SearchResult, rows: Rows, num_classes: int) -> tuple[str, ...]:
    notes = []
    if unsearched := sorted(set(range(num_classes)) - set(rows.targets.tolist())):
        listed = ", ".join(map(str, unsearched))
        notes.append(f"target {listed} was not searched: there are no images of another class")
    missing = sorted({int(t) for t in rows.targets[found.size.isinf()].tolist()})
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        notes.append(
            f"no pattern found within the step limit for {len(missing)} targets ({listed}); they "
            "count as the least suspicious, of unknown size"
        )
    return tuple(notes)
