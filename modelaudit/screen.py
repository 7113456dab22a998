"""Which of these inputs carry a trigger? A scan of the model, then a judgement of every input."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelaudit.device import exact_arithmetic
from modelaudit.errors import ImagesError, UsageError
from modelaudit.evidence import Target
from modelaudit.findings import unseen
from modelaudit.input_files import list_inputs, read_inputs
from modelaudit.report import Report
from modelaudit.reporting import class_names
from modelaudit.scanning import scan
from modelaudit.screen_checks import Calibration, checks_for
from modelaudit.screen_options import ScreenOptions
from modelaudit.screen_report import (
    SCREEN_SCHEMA_VERSION,
    ScreenCheck,
    ScreenedInput,
    ScreenReport,
    UnreadableInput,
)
from modelaudit.stages import StageProgress
from modelaudit.suspect import Suspect

_AT_ONCE = 32  # inputs that are read and judged together
_MOST_CLEAN = 400  # clean images that the inputs are compared with, at most


@exact_arithmetic()
def screen(options: ScreenOptions, progress: StageProgress | None = None) -> ScreenReport:
    """Screen inputs.

    Raises:
        ModelAuditError: the model, the images or an option cannot be used.
    """
    start = time.perf_counter()
    report_stage = progress or (lambda stage, share: None)
    files = list_inputs(options.inputs)
    scanned = scan(options.scan, report_stage)
    _require_meaning(scanned.report)
    suspect = scanned.suspect
    clean = _clean_pixels(suspect, options)
    checks, skipped = checks_for(
        suspect.classifier,
        scanned.findings,
        suspect.chosen.pixels,
        options.superpositions,
        torch.Generator().manual_seed(options.scan.seed),
    )
    report_stage("judging the clean images", 0.0)
    calibration = Calibration.on(checks, clean)
    judged = list(_judged(files, suspect, calibration, options, report_stage))
    inputs = [one for one in judged if isinstance(one, ScreenedInput)]
    unreadable = [one for one in judged if isinstance(one, UnreadableInput)]
    if not inputs:
        raise ImagesError(f"No image in {options.inputs} can be read: {unreadable[0].reason}")
    described = zip(checks, calibration.means, calibration.deviations, strict=True)
    return ScreenReport(
        schema_version=SCREEN_SCHEMA_VERSION,
        directory=str(options.inputs),
        false_rejection_rate=options.false_rejection_rate,
        clean_images=len(clean),
        checks=tuple(ScreenCheck(c.name, c.meaning, mean, std) for c, mean, std in described),
        skipped=tuple(skipped),
        inputs=tuple(sorted(inputs, key=lambda one: (one.p, one.file))),
        unreadable=tuple(unreadable),
        scan=scanned.report,
        image_passes=suspect.classifier.image_passes,
        seconds=time.perf_counter() - start,
    )


def _require_meaning(report: Report) -> None:
    """Inputs say nothing about a trigger where the model and the clean images do not fit.

    Raises:
        ImagesError: a preflight check says so.
    """
    for check in report.preflight:
        if check.status == "inconclusive":
            raise ImagesError(f"The inputs cannot be screened: {check.message} {check.advice}")


def _clean_pixels(suspect: Suspect, options: ScreenOptions) -> Tensor:
    """The clean images that the inputs are compared with ``[n, C, H, W]``.

    Raises:
        UsageError: there are too few to hold the false-rejection rate.
    """
    pixels = torch.cat([suspect.chosen.pixels, unseen(suspect).pixels])
    generator = torch.Generator().manual_seed(options.scan.seed)
    chosen = pixels[torch.randperm(len(pixels), generator=generator)[:_MOST_CLEAN]]
    least = 1 / (len(chosen) + 1)
    if least > options.false_rejection_rate:
        raise UsageError(
            f"--false-rejection-rate {options.false_rejection_rate}: with {len(chosen)} clean "
            f"images no rate below {least:.3f} can be held. Give more clean images "
            "(--images-per-class) or a larger rate."
        )
    return chosen


def _judged(
    files: Sequence[Path],
    suspect: Suspect,
    calibration: Calibration,
    options: ScreenOptions,
    progress: StageProgress,
) -> Iterator[ScreenedInput | UnreadableInput]:
    """One result per file."""
    names, rate = class_names(suspect), options.false_rejection_rate

    def below(file: Path) -> str:
        return file.relative_to(options.inputs).as_posix()

    for start in range(0, len(files), _AT_ONCE):
        progress("judging the inputs", start / len(files))
        images = read_inputs(files[start : start + _AT_ONCE], suspect.classifier.input_shape)
        for file, reason in images.failures.items():
            yield UnreadableInput(below(file), reason)
        if not images.files:
            continue
        scores, p_values = calibration.judge(images.pixels)
        classes = suspect.classifier.predict(images.pixels).tolist()
        for file, row, p, index in zip(images.files, scores, p_values, classes, strict=True):
            yield ScreenedInput(below(file), Target(index, names[index]), row, p, p <= rate)
