"""What published examinations would have said of the models of an evaluation, as yes or no.

An examination describes; where it gives a yes or no about a model, that is a *sign*. The signs say
different things, because no examination sees the attacker's own trigger:

- a sign on *given inputs* judges the images that the manifest's ``suspect_dir`` or ``train_dir``
  names for the model. What it is worth depends on what is in there; for a clean model that must be
  images without a trigger.
- a sign on *the pattern found* judges the pattern that a detector found. Without a finding there is
  nothing to judge, so it is never an alarm of its own. It tells whether the examination would have
  noticed, or removed, what was found.

Where a sign is missing the model counts as skipped, never as passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scipy import stats

from detectors.examinations.strip import Strip
from modelaudit.counting import Count
from modelaudit.examination_report import ExaminationReport


@dataclass(frozen=True)
class Sign:
    """A yes or no of an examination.

    Attributes:
        examination: registered name.
        meaning: when it is raised, for people.
        raised: the examination's numbers and alpha -> yes, no, or ``None`` where the numbers do not
            say.
    """

    examination: str
    meaning: str
    raised: Callable[[Mapping[str, Any], float], bool | None]


@dataclass(frozen=True)
class ExaminationOutcome:
    """An examination of one model of an evaluation.

    Attributes:
        status, reason, summary: see :class:`detectors.examinations.Examination`.
        signs: name in :data:`SIGNS` -> whether it was raised; those that were not skipped.
    """

    status: str
    reason: str
    summary: str
    signs: Mapping[str, bool]


@dataclass(frozen=True)
class Raised:
    """In how many models a sign was raised.

    Attributes:
        count: of those in which it was looked for.
        skipped: models in which it was not.
    """

    count: Count
    skipped: int

    def to_dict(self) -> dict[str, Any]:
        return {**self.count.to_dict(), "skipped": self.skipped}

    def __str__(self) -> str:
        done = f"{self.count.hits}/{self.count.total}" if self.count.total else "-"
        return f"{done} (+{self.skipped} skipped)" if self.skipped else done


def _strip(judged: str) -> Callable[[Mapping[str, Any], float], bool | None]:
    """More inputs below STRIP's threshold than its false rejections explain.

    One-sided exact binomial test: at least ``below`` of ``images`` at rate ``false_rejection``. The
    paper judges single inputs and has no rule for a model; this one favours STRIP, since a small
    part of the inputs is enough. The threshold is itself an estimate, so the share of clean models
    in which the sign is raised may be above alpha.
    """

    def raised(numbers: Mapping[str, Any], alpha: float) -> bool | None:
        if judged not in numbers:
            return None
        below, images = numbers[judged]["below"], numbers[judged]["images"]
        return bool(stats.binom.sf(below - 1, images, Strip().false_rejection) < alpha)

    return raised


def _pruned(numbers: Mapping[str, Any], alpha: float) -> bool | None:
    """Pruning as far as clean accuracy allows halves the flips; the paper gives no such limit."""
    flips = numbers["flip_rate"]
    if not flips[0]:
        return None
    after = flips[numbers["pruned"].index(numbers["tolerated"])]
    return bool(after <= flips[0] / 2)


def _clustered(numbers: Mapping[str, Any], alpha: float) -> bool | None:
    """Some class has a small, separate cluster, by the paper's thresholds."""
    return any(one["suspicious"] for one in numbers["classes"].values())


#: Name -> sign, in the order of the columns.
SIGNS: Mapping[str, Sign] = MappingProxyType(
    {
        "strip, inputs": Sign(
            "strip",
            "more of the inputs in the model's suspect_dir lie below STRIP's threshold than its "
            "false rejections explain",
            _strip("suspects"),
        ),
        "strip, pattern": Sign(
            "strip",
            "more clean images with the pattern that the scan found lie below STRIP's threshold "
            "than its false rejections explain; the attacker's own trigger may fare otherwise",
            _strip("stamped"),
        ),
        "fine-pruning, pattern": Sign(
            "fine-pruning",
            "the pattern that the scan found loses half of its flips or more when dormant units "
            "are pruned at 4 points of clean accuracy; it removes and detects nothing",
            _pruned,
        ),
        "activation-clustering, images": Sign(
            "activation-clustering",
            "a class of the images in the model's train_dir has a small, separate cluster",
            _clustered,
        ),
    }
)
#: Examinations without a yes or no about a model, and why.
WITHOUT_SIGN: Mapping[str, str] = MappingProxyType(
    {
        "spectral-signatures": "it names the same share of every class, poisoned or not, and has "
        "no threshold",
        "latent-view": "it is a distance without a threshold, of a pattern that was found already",
        "grad-cam": "it is a picture",
    }
)


def examination_outcome(report: ExaminationReport, alpha: float) -> ExaminationOutcome:
    """What an evaluation keeps of an examination."""
    signs = {
        name: raised
        for name, sign in SIGNS.items()
        if sign.examination == report.name and report.status == "done"
        if (raised := sign.raised(report.numbers, alpha)) is not None
    }
    return ExaminationOutcome(report.status, report.reason, report.summary, signs)


def raised_in(models: Iterable[Mapping[str, ExaminationOutcome]], sign: str) -> Raised:
    """Count a sign over models; each is given as examination -> outcome."""
    examination = SIGNS[sign].examination
    signs = [one[examination].signs if examination in one else {} for one in models]
    known = [one[sign] for one in signs if sign in one]
    return Raised(Count(sum(known), len(known)), len(signs) - len(known))
