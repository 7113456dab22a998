"""Held-out confirmation: does a found pattern work on images that the search never saw?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from detectors import registry
from detectors.finding import finding_of
from detectors.types import DetectorResult
from modelaudit.findings import searched_images, stamp_sources, unseen, with_pattern
from modelaudit.suspect import Suspect

#: Fewer images than this cannot speak against a finding.
FEWEST_IMAGES = 8


def confirmed(
    results: Sequence[DetectorResult], suspect: Suspect, alpha: float
) -> tuple[DetectorResult, ...]:
    """The results, without the findings that held-out images speak against.

    A pattern that was fitted to a few images and opens no backdoor works on those alone. A finding
    (calibrated p below ``alpha``) is dropped, with p = 1 and a note, if its pattern flips so few
    unseen images of the source classes that the 95 % confidence interval of their share lies below
    half of what it flips among the images of the search. This can only take findings back, so that
    it keeps the false-alarm rate; without unseen images nothing is taken back.
    """
    return tuple(
        _confirm(result, _rests_on(result, results), suspect)
        if result.p_calibrated is not None and result.p_calibrated < alpha
        else result
        for result in results
    )


def _rests_on(result: DetectorResult, results: Sequence[DetectorResult]) -> DetectorResult:
    """The result whose pattern this one rests on: its own, or that of a detector that it judges."""
    return with_pattern(result, results) if registry.runs_after(result.detector) else result


def _confirm(result: DetectorResult, shown: DetectorResult, suspect: Suspect) -> DetectorResult:
    """The result, judged by the pattern of ``shown``: its own, or the one that belongs to it."""
    finding = finding_of(shown)
    if finding is None:
        return result
    used = searched_images(suspect, shown)
    held_out = stamp_sources(suspect, shown, finding, unseen(suspect, used)).count()
    searched = stamp_sources(suspect, shown, finding, used).count()
    if held_out is None or searched is None or held_out.images < FEWEST_IMAGES:
        return result
    if held_out.interval[1] >= searched.flips / searched.images / 2:
        return result
    note = (
        f"p = {result.p_calibrated:.1e} is taken back: the pattern flips {searched.flips} of "
        f"{searched.images} images of the search, but {held_out.flips} of {held_out.images} that "
        "the search has not seen"
    )
    # No size alone would have made this a finding, so there is none to report as the limit.
    return replace(result, p_calibrated=1.0, critical=None, notes=(*result.notes, note))
