"""One scan: prepare, preflight, detect, decide, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from detectors import registry
from detectors.examinations import Examination
from detectors.finding import Finding
from detectors.types import Detector, DetectorResult
from modelaudit.conditions import Clock, Conditions, Stopped
from modelaudit.confirmation import confirmed
from modelaudit.cut_short import CutShort, LeftOut
from modelaudit.detect import (
    doubts_of_few_classes,
    reasons_to_doubt,
    run_detectors,
    with_left_out,
)
from modelaudit.device import exact_arithmetic
from modelaudit.errors import ScanInterrupted, UsageError
from modelaudit.examine import asked_examinations, examine, rejecting_findings, report_of
from modelaudit.findings import explain
from modelaudit.finished import FinishedDetector
from modelaudit.given import read_given
from modelaudit.loaders import LoadedModel
from modelaudit.options import Preset, ScanOptions
from modelaudit.preflight import PreflightReport, run_preflight
from modelaudit.report import Report
from modelaudit.reporting import make_report
from modelaudit.sensitivity import what_it_sees
from modelaudit.stages import StageProgress
from modelaudit.suspect import Suspect, prepare
from modelaudit.verdict import decide

__all__ = ["ScanOptions", "ScanResult", "build_detectors", "scan", "scan_part"]


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


@exact_arithmetic()
def scan(
    options: ScanOptions,
    progress: StageProgress | None = None,
    loaded: LoadedModel | None = None,
    conditions: Conditions | None = None,
) -> ScanResult:
    """Scan a suspect model.

    Args:
        loaded: the model, where it is in memory and ``options.model`` only names it.
        conditions: how long it may take, and what it starts from.

    Raises:
        ModelAuditError: the model, the images or an option cannot be used; never for what was
            found. ``ScanInterrupted`` if somebody ended it before anything was known.
    """
    start = time.perf_counter()
    report_stage = progress or (lambda stage, share: None)
    conditions = conditions or Conditions()
    clock = Clock(conditions, options.time_budget)
    detectors = build_detectors(options.detectors, options.settings, options.preset)
    asked_examinations(options)  # a name that there is not is an error before the work
    suspect = _prepared(options, clock.interruptible(report_stage), loaded)
    given = read_given(options, suspect)
    preflight = _preflight(options, suspect)
    hindered = preflight.worst == "inconclusive"
    if hindered:  # the detectors would prove nothing
        detectors = {}
    done = run_detectors(detectors, suspect, options, conditions, clock.limited(report_stage))
    cut_short = _cut_short(clock, detectors, done, conditions.keep is not None)
    results = confirmed(with_left_out(done, detectors, cut_short), suspect, options.alpha)
    doubts = reasons_to_doubt(done, cut_short)
    doubts += doubts_of_few_classes(suspect.classifier.num_classes)
    judged = (one.detector for one in results if one.p_calibrated is not None)
    weights = registry.weights(judged, options.alpha)
    decision = decide(results, preflight.checks, options.alpha, doubts, weights)
    report_stage("explaining what was found", 0.0)
    findings = explain(results, decision, suspect)
    patterns = rejecting_findings(results, decision)
    finding = patterns[0] if patterns else None
    examinations = examine(options, suspect, given, finding, hindered, clock.limited(report_stage))
    report = make_report(
        options,
        suspect,
        preflight,
        results,
        decision,
        findings,
        tuple(report_of(one, finding, given) for one in examinations),
        time.perf_counter() - start,
        _cut_short(clock, detectors, done, conditions.keep is not None),
    )
    return ScanResult(report, suspect, results, patterns, examinations)


@exact_arithmetic()
def scan_part(
    options: ScanOptions, progress: StageProgress, conditions: Conditions
) -> tuple[FinishedDetector, ...]:
    """What the detectors of a scan find, and nothing after them; see :mod:`modelaudit.resume`.

    Args:
        options: those of the whole scan, with fewer detectors.

    Raises:
        ModelAuditError: as :func:`scan`.
    """
    clock = Clock(conditions, options.time_budget)
    detectors = build_detectors(options.detectors, options.settings, options.preset)
    suspect = _prepared(options, clock.interruptible(progress), None)
    found: list[FinishedDetector] = []
    if _preflight(options, suspect).worst != "inconclusive":
        keeping = replace(conditions, keep=found.append)
        run_detectors(detectors, suspect, options, keeping, clock.limited(progress))
    return tuple(found)


def build_detectors(
    names: Sequence[str], settings: Mapping[str, Mapping[str, str]], preset: Preset = "default"
) -> dict[str, Detector]:
    """The detectors to run (those named, else the preset's), with the user's settings applied.

    Raises:
        UsageError: unknown detector or setting, or a setting of a detector that does not run.
    """
    asked = tuple(dict.fromkeys(names))
    names = asked or registry.preset_names(preset)
    for name in settings:
        if name not in names:
            raise UsageError(
                f"--set names the detector {name!r}, which does not run in this scan; running: "
                f"{', '.join(names)}. Add --detector {name}, or see `modelaudit detectors`."
            )
    try:
        registry.refuse_ambiguous(asked)
        return {name: registry.build(name, settings.get(name, {})) for name in names}
    except ValueError as error:
        raise UsageError(f"{error}. See `modelaudit detectors`.") from error


def _prepared(options: ScanOptions, progress: StageProgress, loaded: LoadedModel | None) -> Suspect:
    """The suspect; nothing is known without one."""
    try:
        return prepare(options, progress, loaded)
    except Stopped as stop:
        raise ScanInterrupted from stop


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


def _cut_short(
    clock: Clock,
    detectors: Mapping[str, Detector],
    done: Mapping[str, DetectorResult],
    kept: bool,
) -> CutShort | None:
    """What was not done so far, if something was stopped."""
    if clock.stopped is None:
        return None
    missing = {name: one for name, one in detectors.items() if name not in done}
    left_out = (LeftOut(name, what_it_sees(name, vars(one))) for name, one in missing.items())
    return CutShort(clock.stopped, tuple(left_out), kept)
