"""Explain what was found: the pattern, and how it works on images that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detectors import registry
from detectors.finding import Finding, finding_of
from detectors.types import DetectorResult
from modelaudit.counting import Count
from modelaudit.evidence import (
    LARGEST_PICTURE,
    FindingReport,
    FindingSource,
    FlipCount,
    Picture,
    Target,
    of_size,
)
from modelaudit.images import CleanImages, select
from modelaudit.pictures import pictures_of
from modelaudit.suspect import Suspect
from modelaudit.verdict import Decision

#: Of pictures of all findings but the first, so that a report of several stays small.
SMALLER_PICTURE = 96

_BATCH = 64
_NO_HELD_OUT = (
    "no correctly classified images of the source classes are left that the search has not seen"
)


def explain(
    results: Sequence[DetectorResult], decision: Decision, suspect: Suspect
) -> tuple[FindingReport, ...]:
    """One report per target class (and one of all-to-all attacks), the surest first.

    Each is of the surest detector that found this target and has a pattern to show. Where none of
    them has one, it shows that of another detector; see :func:`with_pattern`.
    """
    found: dict[int | None, list[tuple[DetectorResult, float]]] = {}
    for p, index in decision.found:
        for one in results[index].each:
            found.setdefault(one.target, []).append((one, p))
    reports: list[FindingReport] = []
    for same in found.values():
        result, p = next((one for one in same if finding_of(one[0])), same[0])
        largest = SMALLER_PICTURE if reports else LARGEST_PICTURE
        shown = with_pattern(result, results)
        report = _explained(shown, p, suspect, largest)
        reports.append(report if shown is result else _lent(report, result, shown))
    return tuple(reports)


def _lent(report: FindingReport, result: DetectorResult, shown: DetectorResult) -> FindingReport:
    """The report of a finding with the pattern of another detector."""
    size = of_size(report.size, shown.unit)
    note = f"the pattern{size} is that of {shown.detector}, most suspicious of this class too"
    note = "; ".join(filter(None, (note, report.note)))
    return replace(report, detector=result.detector, embedding="", size=None, note=note)


def with_pattern(result: DetectorResult, results: Sequence[DetectorResult]) -> DetectorResult:
    """A result with a pattern for this one's target class.

    That is, for a detector without patterns, the surest with one to which the same class is the
    most suspicious, of those that it judges or, if it judges none, of all; the result itself where
    there is none.
    """
    if finding_of(result):
        return result
    judged = registry.runs_after(result.detector)
    same = [
        (one.p_calibrated, one)
        for whole in results
        if whole.detector in judged or not judged
        for one in whole.each
        if (one.target, one.shift) == (result.target, result.shift)
        and one.p_calibrated is not None
        and finding_of(one)
    ]
    return min(same, key=lambda one: one[0])[1] if same else result


@dataclass(frozen=True)
class Stamped:
    """Images with the pattern.

    Attributes:
        predictions: the model's class of each with the pattern ``[n]``.
        flipped: whether that is the attacker's class ``[n]``.
    """

    images: CleanImages
    predictions: Tensor
    flipped: Tensor

    def count(self) -> FlipCount | None:
        """How many are flipped; ``None`` where there are no images."""
        if not len(self.images):
            return None
        flips = Count(int(self.flipped.sum()), len(self.images))
        return FlipCount(flips.hits, flips.total, flips.interval)

    def example(self, source: int) -> tuple[Tensor, int] | None:
        """An image of a class, a flipped one if there is one, and its class with the pattern."""
        of_source = (self.images.labels == source).nonzero().flatten().tolist()
        if not of_source:
            return None
        row = max(of_source, key=lambda i: bool(self.flipped[i]))
        return self.images.pixels[row], int(self.predictions[row])


def _explained(result: DetectorResult, p: float, suspect: Suspect, largest: int) -> FindingReport:
    """The report of one finding, with pictures of at most ``largest`` pixels a side."""
    name, target = suspect.pool.name, result.target
    report = FindingReport(
        detector=result.detector,
        target=None if target is None else Target(target, name(target)),
        shift=result.shift,
        p=p,
        unit=result.unit,
        note=f"{result.detector} judges without a pattern that could be shown",
    )
    finding = finding_of(result)
    if finding is None:
        return report
    used = searched_images(suspect, result)
    searched = stamp_sources(suspect, result, finding, used)
    held_out = stamp_sources(suspect, result, finding, unseen(suspect, used))
    return replace(
        report,
        sources=tuple(
            FindingSource(source, name(source), float(result.sources[source]))
            for source in finding.sources
        ),
        embedding=str(result.settings.get("embedding", "")),
        size=finding.size,
        searched=searched.count(),
        held_out=held_out.count(),
        note="" if len(held_out.images) else _NO_HELD_OUT,
        pictures=_pictures(suspect, finding, (held_out, searched), largest),
    )


def searched_images(suspect: Suspect, result: DetectorResult) -> CleanImages:
    """The images that the detector's search used; some look at a few of each class only."""
    if result.searched is None:
        return suspect.chosen
    return select(suspect.chosen, result.searched.nonzero().flatten().tolist())


def unseen(suspect: Suspect, used: CleanImages | None = None) -> CleanImages:
    """Images of the pool, classified correctly, whose content is not among those used.

    Args:
        used: by one detector; all that the detectors saw where it is not given.
    """
    pool, known = suspect.pool, set((suspect.chosen if used is None else used).digests)
    correct = (suspect.predictions.cpu() == pool.labels).tolist()
    return select(
        pool, [i for i, digest in enumerate(pool.digests) if correct[i] and digest not in known]
    )


@torch.no_grad()
def stamp_sources(
    suspect: Suspect, result: DetectorResult, finding: Finding, images: CleanImages
) -> Stamped:
    """The images of the finding's source classes (of all others where it names none)."""
    classifier, shift = suspect.classifier, result.shift
    wanted = images.labels.new_full(images.labels.shape, finding.target)
    if shift is not None:
        wanted = (images.labels + shift) % classifier.num_classes
    of_sources = wanted != images.labels
    if finding.sources:
        of_sources = torch.isin(images.labels, torch.tensor(finding.sources))
    images = select(images, of_sources.nonzero().flatten().tolist())
    predictions = [
        classifier.predict(finding.stamped(chunk.to(classifier.device)))
        for chunk in images.pixels.split(_BATCH)
        if len(chunk)  # no images are split into one empty part
    ]
    classes = torch.cat([torch.empty(0, dtype=torch.int64), *predictions])
    return Stamped(images, classes, classes == wanted[of_sources])


def _pictures(
    suspect: Suspect, finding: Finding, stamped: Sequence[Stamped], largest: int
) -> tuple[Picture, ...]:
    """Of one image of the heaviest source class, from the first images that have one."""
    name = suspect.pool.name
    for source in finding.sources[:1]:
        for images in stamped:
            if example := images.example(source):
                pixels, predicted = example
                clean = f"clean image of class {source} ({name(source)})"
                caption = f"with the pattern: class {predicted} ({name(predicted)})"
                return pictures_of(finding, pixels, clean, caption, largest)
    return ()
