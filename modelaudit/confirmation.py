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
    half of what it flips among the images of the search; of several targets that stand out
    together, those with such a pattern. This can only take findings back, so that it keeps the
    false-alarm rate; without unseen images nothing is taken back.
    """
    return tuple(
        _confirmed(result, results, suspect)
        if result.p_calibrated is not None and result.p_calibrated < alpha
        else result
        for result in results
    )


def _confirmed(
    result: DetectorResult, results: Sequence[DetectorResult], suspect: Suspect
) -> DetectorResult:
    judged = [(one, _against(_rests_on(one, results), suspect)) for one in result.each]
    left = [one for one, against in judged if not against]
    if len(left) == len(judged):
        return result
    if not left:
        p = f"p = {result.p_calibrated:.1e} is taken back"
        notes = tuple(f"{p}: {against}" for _, against in judged)
        # No size alone would have made this a finding, so there is none to report as the limit.
        return replace(result, p_calibrated=1.0, critical=None, notes=(*result.notes, *notes))
    first, *others = left
    return replace(
        result,
        target=first.target,
        others=tuple(one.target for one in others if one.target is not None),
        sources=first.sources,
        notes=(
            *result.notes,
            *(f"class {one.target} is taken back: {text}" for one, text in judged if text),
        ),
    )


def _rests_on(result: DetectorResult, results: Sequence[DetectorResult]) -> DetectorResult:
    """The result whose pattern this one rests on: its own, or that of a detector that it judges."""
    return with_pattern(result, results) if registry.runs_after(result.detector) else result


def _against(shown: DetectorResult, suspect: Suspect) -> str:
    """What speaks against the pattern of a result; empty where nothing does."""
    finding = finding_of(shown)
    if finding is None:
        return ""
    used = searched_images(suspect, shown)
    held_out = stamp_sources(suspect, shown, finding, unseen(suspect, used)).count()
    searched = stamp_sources(suspect, shown, finding, used).count()
    if held_out is None or searched is None or held_out.images < FEWEST_IMAGES:
        return ""
    if held_out.interval[1] >= searched.flips / searched.images / 2:
        return ""
    return (
        f"the pattern flips {searched.flips} of {searched.images} images of the search, but "
        f"{held_out.flips} of {held_out.images} that the search has not seen"
    )
