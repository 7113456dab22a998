"""What all report formats look up in a report."""

from __future__ import annotations

from modelaudit.evidence import FindingReport, Target
from modelaudit.report import ClassReport, DetectorReport, Report


def suspicious_entries(report: Report, detector: DetectorReport) -> set[int]:
    """The ``target`` of the entries that make the detector reject."""
    if not rejects(report, detector):
        return set()
    if detector.shift is not None:
        return {detector.shift}
    return {one.index for one in detector.targets}


def most_suspicious(detector: DetectorReport) -> list[ClassReport]:
    """One entry per target (or shift), the most suspicious first."""
    best: dict[int, ClassReport] = {}
    for one in sorted(detector.classes, key=lambda c: c.statistic, reverse=True):
        best.setdefault(one.target, one)
    return list(best.values())


def was_stopped(detector: DetectorReport, one: ClassReport) -> bool:
    """Whether a race stopped this target before its last step, its pattern having grown large.

    See :class:`detectors.race.Race`.
    """
    settings = detector.settings
    unfinished = one.size is None and one.steps < settings.get("tau_max", 0)
    return bool(settings.get("race")) and unfinished


def found_by(report: Report, finding: FindingReport) -> list[DetectorReport]:
    """All detectors that found this."""
    return [
        d
        for d in report.detectors
        if rejects(report, d) and finding.target in (d.targets or (None,))
    ]


def rejects(report: Report, detector: DetectorReport) -> bool:
    """Whether the detector alone makes the verdict ``backdoored``."""
    return detector.p_holm is not None and detector.p_holm < report.settings["alpha"]


def surest(report: Report) -> list[DetectorReport]:
    """Detectors worth a chart: per target found the surest; else the one with the least p."""
    with_p = sorted((d for d in report.detectors if d.p_holm is not None), key=_p_or_1)
    known: set[Target | None] = set()
    found = []
    for detector in with_p:
        targets = set(detector.targets or (None,))
        if rejects(report, detector) and not targets <= known:
            known |= targets
            found.append(detector)
    return found or with_p[:1]


def smallest_p(report: Report) -> float | None:
    """The smallest Holm-adjusted p-value."""
    return min((d.p_holm for d in report.detectors if d.p_holm is not None), default=None)


def _p_or_1(detector: DetectorReport) -> float:
    return 1.0 if detector.p_holm is None else detector.p_holm
