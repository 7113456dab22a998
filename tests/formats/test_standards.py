"""The machine formats against their standards' own schemas, and against the exit code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelaudit.evidence import Target
from modelaudit.failure import failure_of
from modelaudit.formats import FORMATS
from modelaudit.formats.policy_text import exit_code_of
from modelaudit.report import Report, schema
from tests.formats.golden import REPORTS
from tests.formats.reports import backdoored

SARIF_SCHEMA = Path(__file__).with_name("data") / "sarif-schema-2.1.0.json"
SHA256 = backdoored().model.sha256


@cache
def rendered(name: str, report: str) -> str:
    return FORMATS[name](REPORTS[report]())


def parsed(name: str, report: str) -> Any:
    return json.loads(rendered(name, report))


@pytest.mark.parametrize("report", REPORTS)
def test_json_fits_our_schema(report: str) -> None:
    jsonschema.Draft202012Validator(schema()).validate(parsed("json", report))


@pytest.mark.parametrize("report", REPORTS)
def test_sarif_fits_the_schema(report: str) -> None:
    kind = jsonschema.Draft202012Validator
    validator = kind(json.loads(SARIF_SCHEMA.read_text()), format_checker=kind.FORMAT_CHECKER)
    validator.validate(parsed("sarif", report))


@pytest.mark.parametrize(
    ("report", "levels"),
    [
        ("backdoored", ["error"]),
        ("clean", []),
        ("inconclusive", ["warning"]),
        ("waived", ["error"]),
        ("failed", []),
    ],
)
def test_sarif_results(report: str, levels: list[str]) -> None:
    (run,) = parsed("sarif", report)["runs"]
    assert [result["level"] for result in run["results"]] == levels
    for result in run["results"]:
        rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert location["uri"] == "models/odd%20%3Cname%3E.onnx"
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] == (report != "failed")
    assert run["artifacts"][0]["hashes"] == {"sha-256": REPORTS[report]().model.sha256}
    if report == "failed":
        assert "No model" in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_a_class_name_makes_no_link_in_sarif() -> None:
    report = backdoored()
    named = Target(3, "[click](http://example.com)")
    detectors = tuple(replace(one, target=named) for one in report.detectors)
    text = FORMATS["sarif"](replace(report, detectors=detectors))
    assert "[click]" in text
    assert "](" not in text


@pytest.mark.parametrize("report", REPORTS)
def test_cyclonedx_fits_the_schema(report: str) -> None:
    text = rendered("cyclonedx", report)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem


def test_cyclonedx_has_a_model_card_with_the_numbers() -> None:
    component = parsed("cyclonedx", "backdoored")["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"] == [{"alg": "SHA-256", "content": SHA256}]
    analysis = component["modelCard"]["quantitativeAnalysis"]
    metrics = {(m["type"], m["slice"]): m for m in analysis["performanceMetrics"]}
    assert metrics["backdoor test: p-value, Holm-adjusted", "l-red-sparse"]["value"] == "7.5e-13"
    flips = metrics["flip rate of the pattern found", "64 held-out images, target class 3 (Dress)"]
    assert float(flips["value"]) == pytest.approx(63 / 64)
    assert float(flips["confidenceInterval"]["lowerBound"]) == pytest.approx(0.916)
    assert len(analysis["graphics"]["collection"]) == 4
    assert parsed("cyclonedx", "backdoored")["vulnerabilities"][0]["affects"] == [{"ref": "model"}]
    assert "vulnerabilities" not in parsed("cyclonedx", "clean")


@pytest.mark.parametrize(
    ("report", "result"),
    [
        ("backdoored", "FAILED"),
        ("clean", "PASSED"),
        ("inconclusive", "WARNED"),
        ("waived", "FAILED"),
        ("failed", "FAILED"),
    ],
)
def test_intoto_statement(report: str, result: str) -> None:
    statement = parsed("intoto", report)
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    predicate = statement["predicate"]
    assert predicate["result"] == result
    (subject,) = statement["subject"]
    assert subject["digest"] == {"sha256": REPORTS[report]().model.sha256}
    if report == "failed":
        return
    tests = predicate["passedTests"] + predicate["warnedTests"] + predicate["failedTests"]
    expected = {d.detector for d in _report(report).detectors}
    assert set(tests) == expected
    assert len(tests) == len(expected)


def test_a_file_that_cannot_be_read_is_nothing_to_vouch_for(tmp_path: Path) -> None:
    failure = failure_of(tmp_path / "missing.onnx", OSError("no file"))
    assert failure.model.sha256 is None
    assert json.loads(FORMATS["intoto"](failure))["subject"] == []
    for name in ("sarif", "cyclonedx", "html", "json"):
        assert "sha-256" not in FORMATS[name](failure).lower()
    (tmp_path / "there.onnx").write_bytes(b"abc")
    digest = failure_of(tmp_path / "there.onnx", OSError("x")).model.sha256
    assert digest == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("report", REPORTS)
def test_junit_fails_if_and_only_if_the_command_does(report: str) -> None:
    root = ElementTree.fromstring(rendered("junit", report))
    (suite,) = root
    counts = {key: int(suite.get(key, "0")) for key in ("failures", "errors", "skipped")}
    cases = suite.findall("testcase")
    assert int(suite.get("tests", "0")) == len(cases)
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert counts[key] == len(suite.findall(f"testcase/{tag}"))
    bad = counts["failures"] + counts["errors"] > 0
    assert bad == (exit_code_of(REPORTS[report]()) != 0)


def test_junit_has_no_characters_that_xml_does_not_know() -> None:
    assert "\\x1b[31m" in rendered("junit", "failed")
    model = replace(backdoored().model, path="odd\ufffe\uffff.onnx")
    ElementTree.fromstring(FORMATS["junit"](replace(backdoored(), model=model)))


def _report(name: str) -> Report:
    report = REPORTS[name]()
    assert isinstance(report, Report)
    return report
