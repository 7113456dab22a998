"""What the detectors say together: a class that stands out a little to several of them.

Each detector tests its own statistics, and several tests cost power (Holm). An attack that none of
them is for, such as a sinusoid over the whole image, makes its target a little too easy for many.
This one runs after the others. It compares what they found for a class with what they find in a
*clean twin* of the suspect (:mod:`detectors.twin`), because some classes are easy in any model, and
tests whether one class is an outlier in all of it together (:mod:`detectors.outlier`). Neither is
from a paper on backdoors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

import numpy as np
import torch

from detectors.gamma import Array
from detectors.logit_gap import logit_gaps
from detectors.lred import NEURONS, LRed
from detectors.mm_bd import MmBd
from detectors.outlier import CovariancePrior, p_value, shifts, simulated
from detectors.stamping import images_per_batch
from detectors.twin import distil
from detectors.types import (
    ClassStatistic,
    Detector,
    DetectorInput,
    DetectorResult,
    Progress,
    without_test,
)
from modelaudit.memory import BatchSize

#: Detectors whose statistics are looked at together.
EVIDENCE = ("l-red", "l-red-sparse", "mm-bd", "l-red-neurons")
#: What belongs to the classes, and not to an attack; see :func:`covariates_of`.
COVARIATES = ("twin l-red", "twin mm-bd", "twin l-red-neurons", "logit gap")
_L_RED = {"sources": "all", "pi": 0.9, "schedule": "fast", "growth": 0.2, "prior": True}
_PATTERN = _L_RED | {"weights": "entropy", "per_class": 0}
#: What their statistics were measured with. With other settings they mean something else.
_MEASURED_WITH: Mapping[str, Mapping[str, object]] = {
    "l-red": {"embedding": "additive", **_PATTERN},
    "l-red-sparse": {"embedding": "sparse", **_PATTERN},
    "l-red-neurons": {**NEURONS, **_L_RED},
    "mm-bd": {"schedule": "fast", "starts": 10, "steps": 30, "prior": True},
}
#: What is run on the twin. It tells apart easy and hard classes with fewer images.
_ON_TWIN: Mapping[str, Detector] = {
    "l-red": LRed("l-red", per_class=4),
    "mm-bd": MmBd("mm-bd"),
    "l-red-neurons": LRed("l-red-neurons", **NEURONS),
}
#: Steps of the twin's training.
_STEPS = 150
#: Share of the clean images that a twin must see as the suspect does.
_ALIKE = 0.8
#: A detector that knows fewer than this share of its statistics says too little of the classes.
_KNOWN = 0.3
#: Models with this many classes were measured. With fewer the classes differ more: the covariance
#: is 3.2, 1.9, 1.3 and 1.2 times as large with 2, 3, 4 and 6 classes
#: (fixtures/results/few-classes.md).
_MEASURED_CLASSES = 10
#: Models of data that were not measured differ more, too: with the covariance so many times as
#: large their p-values are uniform (fixtures/results/joint.md).
_OTHER_DATA = 1.3
#: ``[K]``, and how many are not known.
Logarithms = tuple[Array, int]


@dataclass(frozen=True)
class Joint:
    """The joint test with its settings.

    Attributes:
        name: registered name.
        twin: whether the classes are compared with those of a clean twin, too.
    """

    name: str = "joint"
    twin: bool = True

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Test the largest joint statistic of all classes, after the other detectors."""
        start, passes = time.perf_counter(), data.classifier.image_passes
        classes = data.classifier.num_classes
        evidence = logarithms(_as_measured(data.results), classes)
        if len(evidence) < 2:
            reason = f"it needs two of {', '.join(EVIDENCE)}, with a test and their usual settings"
            return without_test(self.name, reason, {"twin": self.twin})
        values, note = covariates_of(data, self.twin)
        covariates = {name: one for name, r in values.items() if (one := logarithms_of(r))}
        names = (*evidence, *covariates)
        prior = known_of_clean_models().part(names, len(evidence))
        prior = replace(prior, covariance=prior.covariance * excess(classes))
        columns = [*evidence.values(), *covariates.values()]
        x = np.stack([values for values, _ in columns], -1)
        statistics = shifts(x, prior)
        target = int(statistics.argmax())
        null = simulated(classes, [unknown for _, unknown in columns], prior)
        p = p_value(float(statistics[target]), null)
        deviations = _deviations(x, prior, names, target)
        return DetectorResult(
            detector=self.name,
            p_plugin=None,
            log_p_plugin=None,
            p_calibrated=p,
            target=target if p < 1 else None,
            sources={},
            classes=tuple(
                ClassStatistic(one, float(value), float(value) or None, 0.0, {}, 0)
                for one, value in enumerate(statistics)
            ),
            unit="likelihood ratio of a shift of the class; larger is more suspicious",
            patterns={},
            image_passes=data.classifier.image_passes - passes,
            seconds=time.perf_counter() - start,
            settings={"twin": self.twin},
            notes=tuple(filter(None, (note, deviations))),
        )


def _as_measured(results: Mapping[str, DetectorResult]) -> dict[str, DetectorResult]:
    """The results of detectors that ran with the settings that clean models were measured with."""
    return {
        name: results[name]
        for name, settings in _MEASURED_WITH.items()
        if name in results and settings.items() <= results[name].settings.items()
    }


def covariates_of(data: DetectorInput, with_twin: bool = True) -> tuple[dict[str, Array], str]:
    """What belongs to the classes, and not to an attack: positive values ``[K]`` by name.

    "logit gap": by how much the largest logit is ahead of that of class t, the mean over the clean
    images that the suspect takes for another class; 0 where there are none. "twin l-red" and so
    on: the statistics of these in a clean twin. The suspect's passes count as those of any
    detector. Those of the twin, which is small, do not.

    Returns:
        Them, and a sentence if the twin is not enough like the suspect to be compared with it.
    """
    suspect = data.classifier
    logits = suspect.logits(data.pixels, BatchSize(images_per_batch(suspect))).cpu()
    found = {"logit gap": logit_gaps(logits)}
    if not with_twin:
        return found, ""
    share = 1 / (1 + len(_ON_TWIN))
    twin = distil(suspect, data.pixels, _STEPS, data.generator, _part(data.progress, 0.0, share))
    alike = float((twin.predict(data.pixels) == logits.argmax(1)).double().mean())
    if alike < _ALIKE:
        note = f"the clean twin sees {alike:.0%} of the images as the model does: not compared"
        return found, note
    for place, (name, detector) in enumerate(_ON_TWIN.items(), start=1):
        own = torch.Generator().manual_seed(data.generator.initial_seed())
        progress = _part(data.progress, place * share, share)
        result = detector(DetectorInput(twin, data.pixels, data.labels, own, progress))
        if len(result.classes) == suspect.num_classes:
            found[f"twin {name}"] = np.array([one.statistic for one in result.classes])
    return found, ""


def _part(progress: Progress, start: float, share: float) -> Progress:
    """Progress of a part of the work."""
    return lambda done: progress(start + share * done)


def logarithms(results: Mapping[str, DetectorResult], classes: int) -> dict[str, Logarithms]:
    """Of the statistics of those detectors that have a test and know enough of them."""
    found = {}
    for name in EVIDENCE:
        result = results.get(name)
        if result is None or result.reason or len(result.classes) != classes:
            continue
        values = logarithms_of(np.array([one.statistic for one in result.classes]))
        if values is not None:
            found[name] = values
    return found


def logarithms_of(statistics: Array) -> Logarithms | None:
    """The logarithms of statistics ``[K]``, and of how many nothing is known.

    They are 0 then, the smallest of all. They are taken to be as large as the smallest that is
    known, and the simulation of the null does the same. ``None`` where too few are known.
    """
    known = statistics > 0
    if not np.isfinite(statistics).all() or known.mean() < _KNOWN:
        return None
    values = np.log(np.where(known, statistics, statistics[known].min()))
    return values, int((~known).sum())


def excess(classes: int) -> float:
    """How many times as large as in the models measured the covariance is taken to be."""
    return max(_OTHER_DATA, _MEASURED_CLASSES / (classes + 1))


def _deviations(x: Array, prior: CovariancePrior, names: Sequence[str], target: int) -> str:
    """What each detector says of a class against the others, for the report."""
    others = np.delete(x, target, 0)
    away = (x[target] - others.mean(0)) / np.sqrt(np.diag(prior.covariance))
    said = ", ".join(f"{name} {value:+.1f}" for name, value in zip(names, away, strict=True))
    return (
        f"the class against the mean of the others, in a clean model's standard deviations: {said}"
    )


@lru_cache(maxsize=1)
def known_of_clean_models() -> NamedPrior:
    """What was measured of clean models (fixtures/results/joint.md)."""
    text = resources.files("detectors").joinpath("joint_prior.json").read_text("utf-8")
    measured = json.loads(text)
    return NamedPrior(
        tuple(measured["names"]),
        np.array(measured["covariance"]),
        float(measured["weight"]),
        float(measured["tails"]),
    )


@dataclass(frozen=True)
class NamedPrior:
    """Covariance of the logarithms of statistics over the classes of clean models.

    Attributes:
        names: of the detectors and the covariates.
        covariance: ``[n, n]``.
        weight, tails: as those of :class:`detectors.outlier.CovariancePrior`, for all names.
    """

    names: tuple[str, ...]
    covariance: Array
    weight: float
    tails: float

    def part(self, names: Sequence[str], evidence: int) -> CovariancePrior:
        """Of some of them, in this order; the marginal of an inverse Wishart distribution is one,
        too, with as many degrees of freedom less as dimensions."""
        places = [self.names.index(name) for name in names]
        weight = self.weight - (len(self.names) - len(places))
        covariance = self.covariance[np.ix_(places, places)]
        return CovariancePrior(covariance, weight, self.tails, evidence)
