"""What every format says about waivers and policy."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from modelaudit.formats import FORMATS
from modelaudit.formats.wording import summary_line
from modelaudit.policy_report import PolicyReport
from tests.formats.reports import backdoored, failed, waived


def test_policy_is_optional_in_old_reports() -> None:
    """Reports of an earlier version have no such field."""
    import jsonschema

    from modelaudit.report import schema

    plain = {key: value for key, value in backdoored().to_dict().items() if key != "policy"}
    jsonschema.Draft202012Validator(schema()).validate({**plain, "schema_version": "1.2"})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_reason_owner_and_expiry(name: str) -> None:
    shown = html.unescape(FORMATS[name](waived())).replace("\\", "").replace("\n", " ")
    for word in ("reviewed", "jane", "2026-06-30", "joe", "2025-06-30"):
        assert word in shown, word
    assert "backdoored" in shown.lower()


def test_one_line_says_it_too() -> None:
    line = summary_line(waived())
    assert line.startswith("backdoored: ")
    assert "Waived by jane until 2026-06-30: known & <b>reviewed</b> | #12" in line


def test_sarif_suppresses_what_is_waived_and_tells_what_has_expired() -> None:
    (run,) = json.loads(FORMATS["sarif"](waived()))["runs"]
    (result,) = run["results"]
    (suppression,) = result["suppressions"]
    assert (suppression["kind"], suppression["status"]) == ("external", "accepted")
    assert "jane" in suppression["justification"]
    (invocation,) = run["invocations"]
    assert invocation["exitCode"] == 0
    levels = {n["descriptor"]["id"]: n["level"] for n in invocation["toolExecutionNotifications"]}
    assert levels["waiver-expired"] == "error"
    (other,) = json.loads(FORMATS["sarif"](backdoored()))["runs"]
    assert "suppressions" not in other["results"][0]
    assert other["invocations"][0]["exitCode"] == 1


def test_junit_skips_what_is_waived() -> None:
    (suite,) = ElementTree.fromstring(FORMATS["junit"](waived()))
    counts = {key: suite.get(key) for key in ("failures", "errors", "skipped")}
    assert counts == {"failures": "0", "errors": "0", "skipped": "2"}


def test_cyclonedx_and_intoto_keep_the_verdict_beside_the_waiver() -> None:
    (found,) = json.loads(FORMATS["cyclonedx"](waived()))["vulnerabilities"]
    assert found["analysis"]["response"] == ["will_not_fix"]
    predicate = json.loads(FORMATS["intoto"](waived()))["predicate"]
    assert predicate["result"] == "FAILED"
    assert predicate["modelaudit"]["policy"]["exit_code"] == 0


@pytest.mark.parametrize("name", ["text", "json", "html", "markdown"])
def test_where_settings_come_from_is_shown(name: str) -> None:
    settings = {**backdoored().settings, "from": {"alpha": "pyproject.toml"}}
    shown = FORMATS[name](replace(backdoored(), settings=settings))
    assert "pyproject.toml" in shown


@pytest.mark.parametrize("fail_on", [(), ("inconclusive",)])
def test_a_verdict_that_passes_by_policy_is_told_and_still_fails_in_junit(
    fail_on: tuple[str, ...],
) -> None:
    passing: Any = PolicyReport(fail_on, 0, ())
    for report in (replace(backdoored(), policy=passing), replace(failed(), policy=passing)):
        assert "lets this verdict pass" in FORMATS["markdown"](report)
        assert "lets this verdict pass" in FORMATS["html"](report)
        (suite,) = ElementTree.fromstring(FORMATS["junit"](report))
        assert int(suite.get("failures", "0")) + int(suite.get("errors", "0")) > 0
        (run,) = json.loads(FORMATS["sarif"](report))["runs"]
        assert run["invocations"][0]["exitCode"] == 0
