"""The statistics by which inputs are screened, and their calibration on clean images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from detectors.examinations.signature import Removal, margin_drop, removal
from detectors.examinations.strip import superposition_entropy
from detectors.finding import Finding
from modelaudit.classifier import Classifier

_TINY = 1e-12


@dataclass(frozen=True)
class InputCheck:
    """A statistic of inputs.

    Attributes:
        name: ``strip``, or the detector whose pattern's signature it is.
        meaning: of the score, a sentence.
        sign: 1 where high scores are suspicious, -1 where low ones are.
        score: images ``[n, C, H, W]`` -> scores ``[n]``, and which of them count ``[n]``, bool: the
            others are not suspicious, whatever their score.
    """

    name: str
    meaning: str
    sign: int
    score: Callable[[Tensor], tuple[Tensor, Tensor]]


def checks_for(
    classifier: Classifier,
    findings: Sequence[Finding],
    overlays: Tensor,
    superpositions: int,
    generator: torch.Generator,
) -> tuple[list[InputCheck], list[str]]:
    """STRIP and the signature of every pattern found; and why some of them cannot be done.

    Args:
        overlays: clean images ``[m, C, H, W]``.
    """

    def strip(images: Tensor) -> tuple[Tensor, Tensor]:
        entropy = superposition_entropy(classifier, images, overlays, superpositions, generator)
        return entropy, torch.ones(len(images), dtype=torch.bool)

    meaning = "entropy over classes in bits under superposition (STRIP); triggers keep it low"
    checks, skipped = [InputCheck("strip", meaning, -1, strip)], []
    if not findings:
        skipped.append("signature: the scan found no pattern that could be looked for in inputs")
    for finding in findings:
        without = removal(finding, overlays)
        if without is None:
            skipped.append(f"signature: the pattern of {finding.detector} cannot be taken out")
        else:
            checks.append(_signature(classifier, finding, without))
    return checks, skipped


def _signature(classifier: Classifier, finding: Finding, without: Removal) -> InputCheck:
    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        drops, classes = margin_drop(classifier, finding.target, without, images)
        return drops, classes == finding.target

    meaning = (
        f"fall of the lead of class {finding.target} in logits when the pattern of "
        f"{finding.detector} is taken out; counts where the input is taken for that class"
    )
    return InputCheck(finding.detector, meaning, 1, score)


@dataclass(frozen=True)
class Calibration:
    """All checks as one statistic, compared with clean images.

    The statistic of an input is the largest of its scores, each in standard deviations of the clean
    images' scores. Its p-value is its rank among the n clean ones, ``(1 + #{clean ≥ it}) / (n +
    1)``: if the input is one more clean image, p is at most α with probability at most α, whatever
    the distributions are (conformal p-value; Vovk, Gammerman, Shafer 2005). That is exact for one
    check. With several it is nearly so: the means and deviations are of the clean images alone.

    Attributes:
        checks: the checks.
        means, deviations: of the clean images' scores, per check.
        clean: the statistic of the clean images ``[n]``.
    """

    checks: tuple[InputCheck, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    clean: Tensor

    @classmethod
    def on(cls, checks: Sequence[InputCheck], clean: Tensor) -> Calibration:
        """Calibrate on clean images ``[n, C, H, W]``."""
        scored = [check.score(clean) for check in checks]
        finite = [scores[scores.isfinite()] for scores, _ in scored]
        means = tuple(float(scores.sum() / max(len(scores), 1)) for scores in finite)
        deviations = tuple(float(s.std(correction=0)) if len(s) else 0.0 for s in finite)
        found = cls(tuple(checks), means, deviations, torch.empty(0))
        return cls(tuple(checks), means, deviations, found._statistic(scored))

    def judge(self, images: Tensor) -> tuple[list[dict[str, float | None]], list[float]]:
        """Scores by check (``None``: not a number) and p-value of images ``[n, C, H, W]``."""
        scored = [check.score(images) for check in self.checks]
        statistic = self._statistic(scored)
        at_least = (self.clean >= statistic[:, None]).sum(1)
        p = (1 + at_least).double() / (len(self.clean) + 1)
        names = [check.name for check in self.checks]
        columns = [[x if isfinite(x) else None for x in scores.tolist()] for scores, _ in scored]
        rows = zip(*columns, strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows], p.tolist()

    def _statistic(self, scored: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        columns = []
        for check, mean, deviation, (scores, counts) in zip(
            self.checks, self.means, self.deviations, scored, strict=True
        ):
            distance = check.sign * (scores - mean) / max(deviation, _TINY)
            columns.append(distance.where(counts, -torch.inf).nan_to_num(nan=-torch.inf))
        return torch.stack(columns).amax(0)
