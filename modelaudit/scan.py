"""One scan: prepare, preflight, detect, decide, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from detectors import registry
from detectors.examinations import Examination
from detectors.finding import Finding
from detectors.types import Detector, DetectorInput, DetectorResult
from modelaudit.confirmation import confirmed
from modelaudit.errors import UsageError
from modelaudit.examine import asked_examinations, examine, rejecting_findings, report_of
from modelaudit.findings import explain
from modelaudit.given import read_given
from modelaudit.options import Preset, ScanOptions
from modelaudit.preflight import PreflightReport, run_preflight
from modelaudit.report import Report
from modelaudit.reporting import make_report
from modelaudit.stages import StageProgress
from modelaudit.suspect import Suspect, prepare
from modelaudit.verdict import decide

__all__ = ["ScanOptions", "ScanResult", "build_detectors", "scan"]


@dataclass(frozen=True)
class ScanResult:
    """A scan's report, and what it was made from.

    Attributes:
        results: of the detectors, with their patterns.
        findings: patterns of the detectors that found a backdoor, the surest first.
        examinations: with their pictures.
    """

    report: Report
    suspect: Suspect
    results: tuple[DetectorResult, ...]
    findings: tuple[Finding, ...]
    examinations: tuple[Examination, ...]


def scan(options: ScanOptions, progress: StageProgress | None = None) -> ScanResult:
    """Scan a suspect model.

    Raises:
        ModelAuditError: the model, the images or an option cannot be used; never for what was
            found.
    """
    start = time.perf_counter()
    report_stage = progress or (lambda stage, share: None)
    detectors = build_detectors(options.detectors, options.settings, options.preset)
    asked_examinations(options)  # a name that there is not is an error before the work
    suspect = prepare(options, report_stage)
    given = read_given(options, suspect)
    preflight = _preflight(options, suspect)
    results = _detect(detectors, suspect, preflight, options, report_stage)
    results = confirmed(results, suspect, options.alpha)
    decision = decide(results, preflight.checks, options.alpha)
    report_stage("explaining what was found", 0.0)
    findings = explain(results, decision, options.alpha, suspect)
    patterns = rejecting_findings(results, decision, options.alpha)
    finding = patterns[0] if patterns else None
    hindered = preflight.worst == "inconclusive"
    examinations = examine(options, suspect, given, finding, hindered, report_stage)
    report = make_report(
        options,
        suspect,
        preflight,
        results,
        decision,
        findings,
        tuple(report_of(one, finding, given) for one in examinations),
        time.perf_counter() - start,
    )
    return ScanResult(report, suspect, results, patterns, examinations)


def build_detectors(
    names: Sequence[str], settings: Mapping[str, Mapping[str, str]], preset: Preset = "default"
) -> dict[str, Detector]:
    """The detectors to run (those named, else the preset's), with the user's settings applied.

    Raises:
        UsageError: unknown detector or setting, or a setting of a detector that does not run.
    """
    names = tuple(dict.fromkeys(names)) or registry.preset_names(preset)
    for name in settings:
        if name not in names:
            raise UsageError(
                f"--set names the detector {name!r}, which does not run in this scan; running: "
                f"{', '.join(names)}. Add --detector {name}, or see `modelaudit detectors`."
            )
    try:
        return {name: registry.build(name, settings.get(name, {})) for name in names}
    except ValueError as error:
        raise UsageError(f"{error}. See `modelaudit detectors`.") from error


def _preflight(options: ScanOptions, suspect: Suspect) -> PreflightReport:
    """The preflight checks; one that is an error is raised."""
    preflight = run_preflight(
        suspect.classifier,
        suspect.pool,
        suspect.chosen,
        options.images_per_class,
        options.accuracy_floor,
        suspect.predictions,
    )
    preflight.raise_for_errors()
    return preflight


def _detect(
    detectors: Mapping[str, Detector],
    suspect: Suspect,
    preflight: PreflightReport,
    options: ScanOptions,
    progress: StageProgress,
) -> tuple[DetectorResult, ...]:
    """Run the detectors, unless preflight says that they would prove nothing."""
    if preflight.worst == "inconclusive":
        return ()
    results = []
    for name, detector in detectors.items():
        data = DetectorInput(
            suspect.classifier,
            suspect.chosen.pixels,
            suspect.chosen.labels,
            torch.Generator().manual_seed(options.seed),
            lambda share, name=name: progress(name, share),  # type: ignore[misc]
        )
        results.append(detector(data))
    return tuple(results)
