"""The report as JUnit XML: the verdict and every detector are test cases."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from modelaudit.failure import Failure
from modelaudit.formats.policy_text import is_waived, policy_lines
from modelaudit.formats.reading import rejects
from modelaudit.formats.wording import evidence_text, p_text, summary_line
from modelaudit.plain import printable
from modelaudit.report import DetectorReport, Report
from modelaudit.verdict import Verdict


def render_junit(report: Report | Failure) -> str:
    """A suite that fails if and only if the verdict's own exit code is not 0 and it is not waived.

    ``backdoored`` is a failure, ``inconclusive`` and a scan that failed are errors; what a waiver
    covers is skipped. What else the policy lets pass (``--fail-on``) fails here all the same: the
    suite is what such a run leaves for others to decide on.
    """
    cases = [_failed(report)] if isinstance(report, Failure) else _cases(report)
    suite = Element("testsuite", name="modelaudit", tests=str(len(cases)))
    for kind in ("failure", "error", "skipped"):
        number = sum(case.find(kind) is not None for case in cases)
        suite.set({"failure": "failures", "error": "errors"}.get(kind, kind), str(number))
    if isinstance(report, Report):
        suite.set("time", f"{report.seconds:.3f}")
        suite.set("timestamp", str(report.environment["created"]))
        suite.append(_properties(report))
    suite.extend(cases)
    root = Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _failed(failure: Failure) -> Element:
    case = _case("verdict", failure.model.path)
    _outcome(case, "error", failure.error.kind, failure.error.message)
    return case


def _cases(report: Report) -> list[Element]:
    verdict = _case("verdict", report.model.path)
    if report.verdict is Verdict.BACKDOORED:
        _failing(report, verdict, "failure", "backdoored", summary_line(report))
    elif report.verdict is Verdict.INCONCLUSIVE:
        message = " ".join([*report.reasons, *policy_lines(report)])
        _failing(report, verdict, "error", "inconclusive", message)
    return [verdict, *(_detector(report, detector) for detector in report.detectors)]


def _detector(report: Report, detector: DetectorReport) -> Element:
    case = _case(detector.detector, report.model.path)
    case.set("time", f"{detector.seconds:.3f}")
    if rejects(report, detector):
        _failing(report, case, "failure", "backdoored", evidence_text(report, detector))
    elif detector.p_holm is None:
        _outcome(case, "skipped", "", detector.reason)
    else:
        output = f"p = {p_text(detector.p_holm)} (Holm), {p_text(detector.p_calibrated)} calibrated"
        SubElement(case, "system-out").text = output
    return case


def _case(name: str, model: str) -> Element:
    return Element("testcase", name=printable(name), classname=printable(f"modelaudit.{model}"))


def _failing(report: Report, case: Element, kind: str, type_: str, message: str) -> None:
    """A failure or an error; skipped where somebody answers for it."""
    if is_waived(report):
        _outcome(case, "skipped", "waived", message)
    else:
        _outcome(case, kind, type_, message)


def _outcome(case: Element, kind: str, type_: str, message: str) -> None:
    element = SubElement(case, kind, message=printable(message))
    if type_:
        element.set("type", type_)


def _properties(report: Report) -> Element:
    properties = Element("properties")
    values = {
        "verdict": report.verdict.value,
        "model.sha256": report.model.sha256,
        "images.sha256": report.images.sha256,
        "alpha": report.settings["alpha"],
        "modelaudit": report.environment["modelaudit"],
    }
    for name, value in values.items():
        SubElement(properties, "property", name=name, value=printable(str(value)))
    return properties
