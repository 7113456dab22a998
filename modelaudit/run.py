"""Run a scan or an inspection, in a worker process with limits or in this one.

Nothing here imports torch: where there is a worker, only the worker needs it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from modelaudit.checkpoint import Checkpoint
from modelaudit.conditions import Conditions
from modelaudit.errors import ModelAuditError, WorkerCrashError
from modelaudit.finished import FinishedDetector
from modelaudit.inspection import Inspection, inspect_model
from modelaudit.isolation.limits import Limits
from modelaudit.isolation.supervisor import run_task
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain, harmless, to_plain
from modelaudit.report import Report
from modelaudit.screen_options import ScreenOptions
from modelaudit.screen_report import ScreenReport
from modelaudit.stages import STARTING, StageProgress

T = TypeVar("T")


def run_scan(
    options: ScanOptions,
    limits: Limits | None,
    progress: StageProgress | None = None,
    checkpoint: Checkpoint | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """The report of a scan.

    Args:
        limits: of the worker process; ``None`` scans in this process.
        checkpoint: what an unfinished scan of this model left. What this scan finds is added, and
            removed when it has finished.
        stop: when it is set, the scan ends with what it knows; see ``Report.cut_short``.

    Raises:
        ModelAuditError: the scan failed; its ``stage`` says where. ``ScanInterrupted`` if it was
            stopped before anything was known.
    """
    if limits is not None:
        return scan_in_worker(options, limits, progress, checkpoint=checkpoint, stop=stop)
    report = _scan_here(options, progress, checkpoint, stop or threading.Event())
    _settle(checkpoint, report)
    return report


def scan_in_worker(
    options: ScanOptions,
    limits: Limits | None,
    progress: StageProgress | None = None,
    threads: int | None = None,
    cancelled: threading.Event | None = None,
    checkpoint: Checkpoint | None = None,
    stop: threading.Event | None = None,
    finished: tuple[FinishedDetector, ...] = (),
    gpu: str | None = None,
) -> Report:
    """The report of a scan in a worker process; see :func:`run_task` and :func:`run_scan`.

    Args:
        finished: detectors of this scan that ran elsewhere, beside those of the checkpoint.
    """
    payload = {
        "options": to_plain(with_absolute_paths(options)),
        "finished": to_plain((*finished, *(checkpoint.load() if checkpoint else ()))),
        "keep": checkpoint is not None,
    }

    def keep(plain: Any) -> None:
        if checkpoint:
            checkpoint.add(_typed(FinishedDetector, plain))

    plain = run_task(
        "scan",
        payload,
        limits,
        progress,
        threads,
        cancelled,
        partial=keep,
        stop=stop,
        device=options.device,
        gpu=gpu,
    )
    report = as_named(_typed(Report, plain), options)
    _settle(checkpoint, report)
    return report


def scan_part_in_worker(
    options: ScanOptions, limits: Limits | None, threads: int | None = None
) -> tuple[FinishedDetector, ...]:
    """What the detectors of a scan find, as the scan itself takes it up again.

    Nothing for one that has no plain form, or where preflight says that it would prove nothing.
    Arguments and errors as of :func:`scan_in_worker`.
    """
    payload = to_plain(with_absolute_paths(options))
    plain = run_task("scan-part", payload, limits, threads=threads, device=options.device)
    return _typed(tuple[FinishedDetector, ...], plain)


def _settle(checkpoint: Checkpoint | None, report: Report) -> None:
    """What was kept is of no use any more once the scan has finished."""
    if checkpoint and report.cut_short is None:
        checkpoint.clear()


def run_screen(
    options: ScreenOptions, limits: Limits | None, progress: StageProgress | None = None
) -> ScreenReport:
    """Which inputs carry a trigger; see :func:`modelaudit.screen.screen` and ``run_scan``."""
    if limits is None:
        from modelaudit.screen import screen

        return screen(options, progress)
    scan = with_absolute_paths(options.scan)
    absolute = replace(options, scan=scan, inputs=options.inputs.absolute())
    plain = run_task("screen", to_plain(absolute), limits, progress, device=scan.device)
    report = _typed(ScreenReport, plain)
    named = as_named(report.scan, options.scan)
    return replace(report, directory=str(options.inputs), scan=named)


def run_inspection(
    model: Path, arch: str | None, num_classes: int | None, limits: Limits | None
) -> Inspection:
    """What a model file is; see :func:`modelaudit.inspection.inspect_model` and `run_scan`."""
    if limits is None:
        return inspect_model(model, arch, num_classes)
    payload = {"model": str(model.absolute()), "arch": arch, "num_classes": num_classes}
    inspection = _typed(Inspection, run_task("inspect", payload, limits, threads=1))
    return replace(inspection, path=str(model))


def _typed(kind: type[T], plain: Any) -> T:
    """What a worker sent, if it has the form that it must have; safe to print."""
    try:
        return from_plain(kind, harmless(plain))
    except (ValueError, RecursionError) as error:
        raise WorkerCrashError(f"The worker process sent an odd report ({error}).") from error


def _scan_here(
    options: ScanOptions,
    progress: StageProgress | None,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
) -> Report:
    from modelaudit.scanning import scan

    conditions = Conditions(stop=stop)
    if checkpoint:
        conditions = replace(conditions, finished=checkpoint.load(), keep=checkpoint.add)
    current = STARTING

    def follow(stage: str, share: float) -> None:
        nonlocal current
        current = stage
        if progress:
            progress(stage, share)

    try:
        return scan(options, follow, conditions=conditions).report
    except ModelAuditError as error:
        error.stage = error.stage or current
        raise


def with_absolute_paths(options: ScanOptions) -> ScanOptions:
    """The same files, whatever the working folder is."""
    return replace(
        options,
        model=options.model.absolute(),
        clean_dir=options.clean_dir.absolute(),
        labels=_absolute_path(options.labels),
        suspect_dir=_absolute_path(options.suspect_dir),
        train_dir=_absolute_path(options.train_dir),
    )


def _absolute_path(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def as_named(report: Report, options: ScanOptions) -> Report:
    """The report with the paths as the user wrote them."""
    paths = {name: getattr(options, name) for name in ("labels", "suspect_dir", "train_dir")}
    named = {name: str(path) if path else None for name, path in paths.items()}
    return replace(
        report,
        model=replace(report.model, path=str(options.model)),
        images=replace(report.images, directory=str(options.clean_dir)),
        settings={**report.settings, **named},
    )
