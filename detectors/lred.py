"""L-RED: how small a change, applied alike to images of other classes, makes the model say t?

Xiang, Miller, Kesidis, "L-RED: Efficient post-training detection of imperceptible backdoor attacks
without access to the training set" (ICASSP 2021). Three independent parts: an embedding
(:mod:`detectors.embeddings`), the search (:mod:`detectors.search`, Algorithm 1) and the test
(:mod:`detectors.order_statistic`, Sec. 3.2). U-RED and P-RED, which the paper compares with, are
settings of the same code.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from detectors.embeddings import EMBEDDINGS, Embedding
from detectors.gamma import Array, SpreadPrior
from detectors.logit_gap import logit_gaps, shares
from detectors.order_statistic import MIN_STATISTICS, OrderStatisticTest, order_statistic_test
from detectors.race import Race
from detectors.rows import Rows, first_of_each_class
from detectors.search import PatternSearch, SearchConfig, SearchResult
from detectors.stamping import images_per_batch
from detectors.summary import (
    class_statistics,
    gap_note,
    race_notes,
    search_notes,
    shift_notes,
    smallest_patterns,
)
from detectors.types import (
    DetectorInput,
    DetectorResult,
    settings_of,
    with_cost,
    without_test,
)
from modelaudit.memory import BatchSize
from modelaudit.watch import FeaturesUnavailable

_ROWS: Mapping[str, Callable[[Tensor, int], Rows]] = {
    "all": Rows.per_target,
    "pairs": Rows.per_pair,
    "all-to-all": Rows.per_shift,
}
#: A search whose gradient vanishes before this share of the largest size says nothing of the row.
_FAR_ENOUGH = 0.5
_COUNTS = ("refine", "tau_max", "per_class", "full_classes")
_NOT_NEGATIVE = ("delta", "growth", *_COUNTS, "largest", "race")
#: Observations that the embedding's typical spread counts as. In clean models the shapes vary
#: less than this allows for, but for the generator's: 0.50 against 0.45
#: (fixtures/results/spread.md).
PRIOR_WEIGHT = 10.0
PRIORS: Mapping[str, SpreadPrior] = {
    name: SpreadPrior(embedding.clean_shape, PRIOR_WEIGHT) for name, embedding in EMBEDDINGS.items()
}
#: Classes of models with fewer than this differ more in size, for some embeddings
#: (fixtures/results/few-classes.md).
FEW_CLASSES = 6
PRIORS_OF_FEW: Mapping[str, SpreadPrior] = {
    **PRIORS,
    "additive": SpreadPrior(15.0, PRIOR_WEIGHT),
    "sparse": SpreadPrior(5.0, PRIOR_WEIGHT),
    "neurons": SpreadPrior(10.0, PRIOR_WEIGHT),
}
#: Of shifts of all classes most have no pattern below the largest size, so that little is known of
#: their spread: a wide one is assumed.
SHIFT_PRIOR = SpreadPrior(shape=5.0, weight=PRIOR_WEIGHT)
#: Settings of ``l-red-neurons``. Shifts of neurons work on the images of all classes alike: with
#: source weights and more images as many attacks are found, and more clean models stand out.
NEURONS: Mapping[str, Any] = {"embedding": "neurons", "weights": "uniform", "per_class": 4}


@dataclass(frozen=True)
class LRed:
    """L-RED with its settings.

    Attributes:
        name: registered name.
        embedding: a name in :data:`detectors.embeddings.EMBEDDINGS`; the paper's is ``additive``.
        weights: ``entropy`` (Eqs. 6-8) or ``uniform`` (U-RED).
        sources: ``all`` classes at once to one target (Eq. 3); ``pairs``: every class pair on its
            own (P-RED, Eq. 2), where the null leaves out all pairs with the suspicious target; or
            ``all-to-all`` (not in the paper): every class to the class d after it, one pattern per
            shift d. In an all-to-all attack every class is a target, so that none stands out, but
            one shift does.
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
        per_class: at most so many images of each class are used; 0 means all. Where every class
            counts at once, as in ``all-to-all``, fewer of each are enough.
        full_classes: a pattern is searched with at most as many images as so many classes have. Of
            more classes each gives fewer images, and at last only a random part of the classes
            gives one, another part for every target: the cost of a scan then grows with K instead
            of K². 0 means no limit, as in the paper.
        largest: size beyond which a pattern is given up; 0 means the default: none, or, for
            ``all-to-all``, the embedding's own. Most clean models have no pattern of any size that
            shifts all classes.
        race: with more than 12 classes: once the smallest patterns, those of an eighth of the
            targets (4 at least), are found, targets whose pattern has grown beyond so many times
            the largest of these are stopped. The null is then fitted by censored maximum
            likelihood; there is no paper's p-value where targets were stopped, because it needs
            all statistics. 0 means that all targets are searched to the end, as in the paper; so
            does ``largest``.
        precision: ``bfloat16`` computes the gradients in it, about twice as fast on hardware for
            it; whether a pattern reaches π is decided in ``float32`` all the same.
        prior: whether what is known of clean models is used: for the null's spread
            (:class:`detectors.gamma.SpreadPrior`), and for targets that all images are near to
            (:mod:`detectors.logit_gap`). The paper's p-value knows neither.
    """

    name: str = "l-red"
    embedding: str = "additive"
    weights: Literal["entropy", "uniform"] = "entropy"
    sources: Literal["all", "pairs", "all-to-all"] = "all"
    pi: float = 0.9
    schedule: Literal["fast", "paper"] = "fast"
    delta: float = 0.0
    growth: float = 0.2
    refine: int = 4
    tau_max: int = 0
    per_class: int = 0
    full_classes: int = 12
    largest: float = 0.0
    race: float = 1.5
    precision: Literal["float32", "bfloat16"] = "float32"
    prior: bool = True

    def __post_init__(self) -> None:
        if self.embedding not in EMBEDDINGS:
            known = ", ".join(EMBEDDINGS)
            raise ValueError(f"embedding is {self.embedding!r}; it must be one of: {known}")
        if not 0 < self.pi < 1:
            raise ValueError(f"pi is {self.pi}; it must lie between 0 and 1")
        for setting in _NOT_NEGATIVE:
            value = getattr(self, setting)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{setting} is {value}; it must be finite and not negative")
        if 0 < self.race <= 1:
            raise ValueError(f"race is {self.race}; it must be 0, for none, or larger than 1")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Estimate a pattern per putative target and test the smallest."""
        return with_cost(data, lambda: self._result(data))

    def _result(self, data: DetectorInput) -> DetectorResult:
        """The result but for its cost, whatever the model shows."""
        try:
            return self._tested(data)
        except FeaturesUnavailable as unavailable:
            return without_test(self.name, str(unavailable), settings_of(self))

    def _tested(self, data: DetectorInput) -> DetectorResult:
        """The result but for its cost.

        Raises:
            FeaturesUnavailable: the embedding needs what the model does not show.
        """
        device, num_classes = data.classifier.device, data.classifier.num_classes
        labels = data.labels.to(device)
        chosen, rows = self.searched(labels, num_classes, data.generator)
        if self.sources == "all-to-all" and len(rows) < MIN_STATISTICS:
            ways = "1 way" if len(rows) == 1 else f"{len(rows)} ways"
            few = f"{num_classes} classes can be shifted in {ways}"
            reason = f"{few}; the test needs {MIN_STATISTICS}"
            return without_test(self.name, reason, settings_of(self))
        pixels, labels = data.pixels[chosen.cpu()].to(device), labels[chosen]
        embedding = EMBEDDINGS[self.embedding].fit(pixels, data.generator, data.classifier)
        config = self._search_config(data.classifier.input_shape, len(rows))
        search = PatternSearch(data.classifier, pixels, labels, embedding, config)
        found = search.run(rows, data.progress)
        counted = self._counted(data, pixels, rows)
        test = self._test(found, rows, embedding, config, counted)
        hidden = bool((found.size <= embedding.largest(data.classifier.input_shape)).any())
        classes = class_statistics(found, rows, found.size.double().cpu().reciprocal().numpy())
        best = classes[test.index] if test.index is not None else None
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=best.target if best and self.sources != "all-to-all" else None,
            others=tuple(classes[one].target for one in test.others),
            shift=best.target if best and self.sources == "all-to-all" else None,
            sources=best.weights if best else {},
            classes=classes,
            unit=embedding.unit,
            patterns=smallest_patterns(found, rows) if embedding.in_images else {},
            image_passes=0.0,
            seconds=0.0,
            null=test.null,
            settings=self._settings_used(config),
            notes=(
                *self._notes(found, rows, num_classes, embedding, config, test.count),
                *gap_note(found.size, rows, counted),
            ),
            reason=test.reason,
            applicable=not test.reason or embedding.reaches_all or hidden,
            critical=test.critical,
            stamp=embedding.apply if embedding.in_images else None,
            searched=chosen.cpu(),
        )

    def searched(
        self, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Rows]:
        """Which of the images with these classes ``[n]`` the search uses ``[n]``, and for what."""
        each = int(labels.bincount().max())
        each = min(self.per_class or each, each)
        most = num_classes
        if self.full_classes and self.sources != "pairs":  # a pair has the images of one class
            images = self.full_classes * each
            each = min(each, max(1, images // len(labels.unique())))
            most = images // each
        chosen = first_of_each_class(labels, each)
        # What one detector leaves out, another should not.
        own = generator.initial_seed() + zlib.crc32(self.name.encode())
        rows = _ROWS[self.sources](labels[chosen], num_classes)
        return chosen, rows.thinned(most, torch.Generator().manual_seed(own))

    def _counted(self, data: DetectorInput, pixels: Tensor, rows: Rows) -> Array | None:
        """How much of each row's statistic counts ``[R]``; ``None``: all of it."""
        if not self.prior or self.sources != "all":
            return None
        batch = BatchSize(images_per_batch(data.classifier))
        gaps = logit_gaps(data.classifier.logits(pixels, batch))
        return shares(gaps)[rows.targets.cpu().numpy()]

    def _test(
        self,
        found: SearchResult,
        rows: Rows,
        embedding: Embedding,
        config: SearchConfig,
        counted: Array | None,
    ) -> OrderStatisticTest:
        """Sec. 3.2 on r_t = 1 / size; a pattern beyond the largest size is known to be larger."""
        grown = embedding.size(found.theta)
        searched = (grown > 0) & ~(found.lost & (grown < _FAR_ENOUGH * config.largest))
        censored = found.size.isinf() & searched & math.isfinite(config.largest)
        size = torch.where(censored, config.largest, found.size)
        return order_statistic_test(
            size.double().cpu().reciprocal().numpy(),
            rows.targets.cpu().numpy(),
            self._prior(len(rows)),
            censored.cpu().numpy(),
            config.race,
            counted,
            several=self.sources == "all",
        )

    def _notes(
        self,
        found: SearchResult,
        rows: Rows,
        num_classes: int,
        embedding: Embedding,
        config: SearchConfig,
        tested: int,
    ) -> tuple[str, ...]:
        if self.sources == "all-to-all":
            return shift_notes(found, config.largest, embedding.unit)
        if config.race is None:
            return search_notes(found, rows, num_classes, tested)
        stopped = found.size.isinf() & (found.steps < config.tau_max)
        bound = config.race.largest(found.size)
        return (
            *race_notes(config.race, bound, stopped, embedding.unit),
            *search_notes(found, rows, num_classes, tested, ~stopped),
        )

    def _prior(self, rows: int) -> SpreadPrior | None:
        if not self.prior or self.sources == "pairs":
            return None
        if self.sources == "all-to-all":
            return SHIFT_PRIOR
        return (PRIORS if rows >= FEW_CLASSES else PRIORS_OF_FEW)[self.embedding]

    def _settings_used(self, config: SearchConfig) -> dict[str, object]:
        """The settings with the schedule's defaults filled in, for the report."""
        used = {name: getattr(config, name) for name in ("delta", "growth", "refine", "tau_max")}
        used["largest"] = config.largest if math.isfinite(config.largest) else 0.0
        used["race"] = config.race.factor if config.race else 0.0
        return settings_of(self) | used

    def _search_config(self, input_shape: tuple[int, int, int], rows: int) -> SearchConfig:
        """The settings of the search of so many rows, with the schedule's defaults filled in."""
        paper = self.schedule == "paper"
        embedding = EMBEDDINGS[self.embedding]
        default_delta = 1e-4 if paper else embedding.first_step
        all_to_all = self.sources == "all-to-all"
        default_largest = embedding.largest(input_shape) if all_to_all else math.inf
        return SearchConfig(
            pi=self.pi,
            delta=self.delta or default_delta,
            growth=0.0 if paper else self.growth,
            tau_max=self.tau_max or (100_000 if paper else 64),
            entropy_weights=self.weights == "entropy",
            refine=0 if paper else self.refine,
            largest=self.largest or default_largest,
            bfloat16=self.precision == "bfloat16",
            race=self._race(rows),
        )

    def _race(self, rows: int) -> Race | None:
        """The race of so many targets; ``None`` where all are searched to the end."""
        if self.sources != "all" or self.schedule == "paper" or self.largest or not self.race:
            return None
        return Race.of(rows, self.race)
