"""The report as an in-toto statement (v1) about the model file, to be signed by who publishes it.

The predicate is in-toto's generic test result (``test-result/v0.1``): the detectors are the tests.
"""

from __future__ import annotations

import json
from typing import Any

from modelaudit.failure import Failure
from modelaudit.formats.reading import rejects
from modelaudit.plain import to_plain
from modelaudit.report import Report
from modelaudit.verdict import Verdict

_RESULTS = {
    Verdict.NO_BACKDOOR_FOUND: "PASSED",
    Verdict.INCONCLUSIVE: "WARNED",
    Verdict.BACKDOORED: "FAILED",
}


def render_intoto(report: Report | Failure) -> str:
    """A statement whose subject is the model's SHA-256.

    Without one, because the file could not be read, there is no subject, and no verifier accepts
    the statement. The result is the verdict's; that it is waived, and why, is said beside it.
    """
    predicate = _failed(report) if isinstance(report, Failure) else _predicate(report)
    name, sha256 = report.model.path, report.model.sha256
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": sha256}}] if sha256 else [],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": predicate,
    }
    return json.dumps(statement, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _failed(failure: Failure) -> dict[str, Any]:
    return {
        "result": "FAILED",
        "configuration": [],
        "failedTests": ["scan"],
        "modelaudit": failure.to_dict(),
    }


def _predicate(report: Report) -> dict[str, Any]:
    images = {"name": "clean images", "digest": {"sha256": report.images.sha256}}
    settings = {"name": "settings", "annotations": dict(report.settings)}
    rejecting = [d.detector for d in report.detectors if rejects(report, d)]
    without_p = [d.detector for d in report.detectors if d.p_holm is None]
    return {
        "result": _RESULTS[report.verdict],
        "configuration": [images, settings],
        "passedTests": [
            d.detector for d in report.detectors if d.detector not in (*rejecting, *without_p)
        ],
        "warnedTests": without_p,
        "failedTests": rejecting,
        # An extension, which the predicate allows: the evidence, without pictures of the images.
        "modelaudit": {
            "verdict": report.verdict.value,
            "targets": [{"index": t.index, "name": t.name} for t in report.targets],
            "reasons": list(report.reasons),
            "p": {d.detector: d.p_holm for d in report.detectors},
            "environment": dict(report.environment),
            **({"policy": to_plain(report.policy)} if report.policy else {}),
            "cut_short": to_plain(report.cut_short),
        },
    }
