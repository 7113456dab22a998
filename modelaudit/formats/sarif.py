"""The report as SARIF 2.1.0, for code scanning services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelaudit.failure import Failure
from modelaudit.formats.policy_text import exit_code_of, waiver_text
from modelaudit.formats.reading import rejects
from modelaudit.formats.wording import evidence_text, next_step
from modelaudit.report import DetectorReport, Report
from modelaudit.verdict import Verdict

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_INCONCLUSIVE = "inconclusive"
#: How a check's status is called in a notification.
_LEVELS = {"note": "note", "warning": "warning", "inconclusive": "warning", "error": "error"}


def render_sarif(report: Report | Failure) -> str:
    """A result of level ``error`` per detector that found a backdoor, ``warning`` if inconclusive.

    A scan that failed has no results; its invocation was not successful.
    """
    run = _failed(report) if isinstance(report, Failure) else _run(report)
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _failed(failure: Failure) -> dict[str, Any]:
    notification = {
        "level": "error",
        "descriptor": {"id": failure.error.kind},
        "message": _message(f"while {failure.error.stage}: {failure.error.message}"),
        "locations": [_location(failure.model.path)],
    }
    return {
        "tool": {"driver": _driver(failure.environment["modelaudit"], [])},
        "invocations": [
            {
                "executionSuccessful": False,
                "exitCode": exit_code_of(failure),
                "toolExecutionNotifications": [notification],
            }
        ],
        "artifacts": [_artifact(failure)],
        "results": [],
    }


def _run(report: Report) -> dict[str, Any]:
    rules = [_rule(report, detector.detector) for detector in report.detectors]
    rules.append({"id": _INCONCLUSIVE, "shortDescription": {"text": "The scan could not tell."}})
    notifications = [
        {"level": _LEVELS[c.status], "descriptor": {"id": c.name}, "message": _message(c.message)}
        for c in report.preflight
        if c.status in _LEVELS
    ]
    notifications += _expired(report)
    if cut := report.cut_short:
        descriptor = {"id": cut.cause.replace(" ", "-")}
        notifications.append(
            {"level": "warning", "descriptor": descriptor, "message": _message(str(cut))}
        )
    return {
        "tool": {"driver": _driver(report.environment["modelaudit"], rules)},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": exit_code_of(report),
                "endTimeUtc": report.environment["created"].replace("+00:00", "Z"),
                "toolExecutionNotifications": notifications,
            }
        ],
        "artifacts": [_artifact(report)],
        "results": _results(report),
        "properties": {"verdict": report.verdict.value, "imagesSha256": report.images.sha256},
    }


def _expired(report: Report) -> list[dict[str, Any]]:
    """Waivers that hold no more."""
    expired = report.policy.expired if report.policy else ()
    descriptor = {"id": "waiver-expired"}
    return [
        {"level": "error", "descriptor": descriptor, "message": _message(waiver_text(one))}
        for one in expired
    ]


def _suppressions(report: Report) -> dict[str, Any]:
    """That the results of a waived model need no action, and why."""
    applied = report.policy.applied if report.policy else ()
    accepted = [
        {"kind": "external", "status": "accepted", "justification": waiver_text(one)}
        for one in applied
    ]
    return {"suppressions": accepted} if accepted else {}


def _results(report: Report) -> list[dict[str, Any]]:
    if report.verdict is Verdict.INCONCLUSIVE:
        text = " ".join(report.reasons)
        return [_result(report, _INCONCLUSIVE, len(report.detectors), "warning", text, "")]
    return [
        _result(
            report,
            detector.detector,
            index,
            "error",
            evidence_text(report, detector),
            _target_key(detector),
        )
        | {"properties": {"p": detector.p_holm, "pCalibrated": detector.p_calibrated}}
        for index, detector in enumerate(report.detectors)
        if rejects(report, detector)
    ]


def _target_key(detector: DetectorReport) -> str:
    return str(detector.target.index) if detector.target else f"shift {detector.shift}"


def _result(
    report: Report, rule: str, index: int, level: str, text: str, key: str
) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "ruleIndex": index,
        "level": level,
        "message": _message(text),
        "locations": [_location(report.model.path, 0)],
        "partialFingerprints": {"modelTarget/v1": f"{report.model.sha256}:{rule}:{key}"},
        **_suppressions(report),
    }


def _message(text: str) -> dict[str, str]:
    """A message without links: viewers make one of ``[text](address)`` (SARIF 2.1.0, 3.11.6)."""
    return {"text": text.replace("](", "]\u200b(")}


def _rule(report: Report, detector: str) -> dict[str, Any]:
    sees = [entry.sees for entry in report.looked_for if entry.detector == detector]
    return {
        "id": detector,
        "shortDescription": {"text": f"Backdoor: {sees[0] if sees else detector}"},
        "help": {"text": next_step(report)},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security"], "security-severity": "9.0"},
    }


def _artifact(report: Report | Failure) -> dict[str, Any]:
    artifact: dict[str, Any] = {"location": {"uri": _uri(report.model.path)}}
    if report.model.sha256:
        artifact["hashes"] = {"sha-256": report.model.sha256}
    return artifact


def _driver(version: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": "modelaudit", "version": version, "rules": rules}


def _location(path: str, index: int | None = None) -> dict[str, Any]:
    """The model file. Services that show code want a line; a model has only its first."""
    artifact: dict[str, Any] = {"uri": _uri(path)}
    if index is not None:
        artifact["index"] = index
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}


def _uri(path: str) -> str:
    """A file URI, or a relative reference for a relative path."""
    return Path(path).as_uri() if Path(path).is_absolute() else quote(Path(path).as_posix())
