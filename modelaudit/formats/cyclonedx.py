"""The report as a CycloneDX 1.6 ML-BOM: a model card with its quantitative analysis.

Written here because cyclonedx-python-lib has no model cards; the tests validate with it.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from modelaudit.evidence import FindingReport, FlipCount, Picture
from modelaudit.failure import Failure
from modelaudit.formats.policy_text import is_waived, policy_lines
from modelaudit.formats.reading import rejects
from modelaudit.formats.wording import evidence_text, finding_name, meaning, next_step, seen_text
from modelaudit.report import Report
from modelaudit.verdict import Verdict

_PREFIX = "modelaudit:"


def render_cyclonedx(report: Report | Failure) -> str:
    """A BOM whose component is the model; a backdoor is a vulnerability of it."""
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [_tool(report)]}, "component": _component(report)},
    }
    if isinstance(report, Report):
        created = report.environment["created"]
        identity = f"{_PREFIX}{report.model.sha256}:{report.images.sha256}:{created}"
        bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}"
        bom["metadata"]["timestamp"] = created
        if report.verdict is Verdict.BACKDOORED:
            bom["vulnerabilities"] = [_vulnerability(report)]
    return json.dumps(bom, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _tool(report: Report | Failure) -> dict[str, Any]:
    version = report.environment["modelaudit"]
    return {"type": "application", "name": "modelaudit", "version": version}


def _component(report: Report | Failure) -> dict[str, Any]:
    path = report.model.path
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": Path(path).name or path,
        "properties": _properties(report),
    }
    if report.model.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": report.model.sha256}]
    if isinstance(report, Report):
        component["modelCard"] = _model_card(report)
    return component


def _properties(report: Report | Failure) -> list[dict[str, str]]:
    values = {"verdict": str(report.verdict), "path": report.model.path}
    if isinstance(report, Failure):
        values["error"] = report.error.message
    else:
        values |= {
            "alpha": str(report.settings["alpha"]),
            "detectors": ", ".join(d.detector for d in report.detectors),
            "images.sha256": report.images.sha256,
        }
    properties = [{"name": _PREFIX + name, "value": value} for name, value in values.items()]
    policy = [{"name": f"{_PREFIX}policy", "value": line} for line in policy_lines(report)]
    return properties + policy


def _model_card(report: Report) -> dict[str, Any]:
    analysis: dict[str, Any] = {"performanceMetrics": _metrics(report)}
    if graphics := [_graphic(f, picture) for f in report.findings for picture in f.pictures]:
        description = "one clean image, the image with the pattern found, their difference"
        analysis["graphics"] = {"description": description, "collection": graphics}
    shape = "x".join(map(str, report.model.input_shape))
    return {
        "modelParameters": {
            "task": "image classification",
            "inputs": [{"format": f"image, {shape} (channels x height x width)"}],
            "outputs": [{"format": f"{report.model.outputs}, {len(report.model.classes)} classes"}],
        },
        "quantitativeAnalysis": analysis,
        "considerations": {"technicalLimitations": [meaning(report), *_looked_for(report)]},
    }


def _looked_for(report: Report) -> list[str]:
    return [f"{one.detector} ({one.sees}): {seen_text(one)}" for one in report.looked_for]


def _metrics(report: Report) -> list[dict[str, Any]]:
    metrics = [
        {
            "type": "backdoor test: p-value, Holm-adjusted",
            "value": str(detector.p_holm),
            "slice": detector.detector,
        }
        for detector in report.detectors
        if detector.p_holm is not None
    ]
    if report.images.accuracy is not None:
        value, used = str(report.images.accuracy), f"{report.images.pool} clean images"
        metrics.append({"type": "accuracy", "value": value, "slice": used})
    return [*metrics, *(_flip_rate(f, f.held_out) for f in report.findings if f.held_out)]


def _flip_rate(finding: FindingReport, held_out: FlipCount) -> dict[str, Any]:
    low, high = held_out.interval
    return {
        "type": "flip rate of the pattern found",
        "value": str(held_out.flips / held_out.images),
        "slice": f"{held_out.images} held-out images, {finding_name(finding)}",
        "confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)},
    }


def _graphic(finding: FindingReport, picture: Picture) -> dict[str, Any]:
    image = {"contentType": "image/png", "encoding": "base64", "content": picture.png}
    return {"name": f"{finding_name(finding)}: {picture.caption}", "image": image}


def _vulnerability(report: Report) -> dict[str, Any]:
    found = [evidence_text(report, d) for d in report.detectors if rejects(report, d)]
    waived = {"response": ["will_not_fix"], "detail": "\n".join(policy_lines(report))}
    return {
        "id": "modelaudit-backdoor",
        "description": meaning(report),
        "detail": "\n".join(found),
        "recommendation": next_step(report),
        "ratings": [{"severity": "critical", "method": "other"}],
        "affects": [{"ref": "model"}],
        **({"analysis": waived} if is_waived(report) else {}),
    }
