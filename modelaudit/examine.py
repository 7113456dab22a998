"""The examinations of a scan: which are done, and what the report says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from detectors.examinations import (
    EXAMINATIONS,
    Examination,
    ExaminationInput,
    Examiner,
    Labelled,
    examined,
    skipped,
)
from detectors.finding import Finding, finding_of
from detectors.types import DetectorResult
from modelaudit.conditions import Stopped
from modelaudit.errors import UsageError
from modelaudit.examination_report import ExaminationReport
from modelaudit.findings import unseen, with_pattern
from modelaudit.given import Given
from modelaudit.images import CleanImages
from modelaudit.options import ScanOptions
from modelaudit.stages import StageProgress
from modelaudit.suspect import Suspect
from modelaudit.verdict import Decision

#: Share of the scan's image-passes that the examinations which nobody asked for may take.
UNASKED_SHARE = 0.05
_HINDERED = "the model and the clean images do not fit together; see the reasons of the verdict"


def asked_examinations(options: ScanOptions) -> tuple[str, ...]:
    """Names of the examinations that the user asks for, by name or with the images for them.

    Raises:
        UsageError: there is no such examination.
    """
    for name in options.examine:
        if name not in EXAMINATIONS and name != "all":
            known = ", ".join(EXAMINATIONS)
            raise UsageError(f"--examine {name}: expected all or one of {known}.")
    given = {"suspects": options.suspect_dir, "train": options.train_dir}
    everything = "all" in options.examine or options.preset == "thorough"
    return tuple(
        name
        for name, entry in EXAMINATIONS.items()
        if everything or name in options.examine or any(given.get(need) for need in entry.needs)
    )


def rejecting_findings(
    results: Sequence[DetectorResult], decision: Decision
) -> tuple[Finding, ...]:
    """The patterns for one target class of the detectors that found a backdoor, the surest first.

    Examinations and screening compare with one class; a pattern of an all-to-all attack has none.
    """
    found = (
        with_pattern(one, results) for _, index in decision.found for one in results[index].each
    )
    once = {(result.detector, result.target): result for result in found}
    patterns = (finding_of(result) for result in once.values() if result.shift is None)
    return tuple(pattern for pattern in patterns if pattern is not None)


def examine(
    options: ScanOptions,
    suspect: Suspect,
    given: Given,
    finding: Finding | None,
    hindered: bool,
    progress: StageProgress,
) -> tuple[Examination, ...]:
    """Do the examinations: those asked for, and after a finding the cheap ones beside them.

    Args:
        hindered: whether preflight says that looking at the model would prove nothing.
        progress: may raise :class:`Stopped`; what has not been done then is skipped.
    """
    budget = UNASKED_SHARE * suspect.classifier.image_passes
    asked = asked_examinations(options)
    if hindered:
        return tuple(skipped(EXAMINATIONS[name].config(), _HINDERED) for name in asked)
    examiners = tuple(_examiners(asked, finding))
    if not examiners:
        return ()
    data = _input(suspect, given, finding)
    done = []
    for name, examiner in examiners:
        data = replace(
            data,
            generator=torch.Generator().manual_seed(options.seed),
            progress=_reporter(progress, f"examining: {name}"),
        )
        cost = examiner.cost(data)
        if name not in asked and cost > budget:
            reason = (
                f"it would take {cost:,.0f} image-passes, and what nobody asked for may take "
                f"{UNASKED_SHARE:.0%} of the scan's; --examine {name} does it"
            )
            done.append(skipped(examiner, reason))
            continue
        try:
            progress(f"examining: {name}", 0.0)
            done.append(examined(examiner, data))
        except Stopped as stop:
            done.append(skipped(examiner, stop.reason))
        budget -= 0 if name in asked else done[-1].image_passes
    return tuple(done)


def report_of(examination: Examination, finding: Finding | None, given: Given) -> ExaminationReport:
    """The examination as plain data."""
    needs = EXAMINATIONS[examination.name].needs
    return ExaminationReport(
        name=examination.name,
        status=examination.status,
        reason=examination.reason,
        summary=examination.summary,
        target=finding.target if finding and "finding" in needs else None,
        numbers=_finite(examination.numbers),
        cannot_see=examination.cannot_see,
        notes=tuple(note for need in needs for note in given.notes.get(need, ())),
        image_passes=examination.image_passes,
        seconds=examination.seconds,
    )


def labelled(images: CleanImages) -> Labelled:
    """Clean images as the examinations take them."""
    return Labelled(images.pixels, images.labels, tuple(file.name for file in images.files))


def _examiners(asked: Sequence[str], finding: Finding | None) -> Iterator[tuple[str, Examiner]]:
    for name, entry in EXAMINATIONS.items():
        if name in asked:
            yield name, entry.config()
        elif finding is not None and entry.cheap is not None:
            yield name, entry.config(**entry.cheap)


def _input(suspect: Suspect, given: Given, finding: Finding | None) -> ExaminationInput:
    return ExaminationInput(
        classifier=suspect.classifier,
        clean=labelled(suspect.chosen),
        held_out=labelled(unseen(suspect)),
        generator=torch.Generator(),
        finding=finding,
        train=given.train,
        suspects=given.suspects,
    )


def _reporter(progress: StageProgress, stage: str) -> Callable[[float], None]:
    return lambda share: progress(stage, share)


def _finite(value: Any) -> Any:
    """Plain values with ``None`` for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
