"""What a verdict means, in plain language."""

from __future__ import annotations

from dataclasses import replace

from modelaudit.formats.wording import meaning
from modelaudit.report import Report
from tests.formats.reports import backdoored


def found_by(detector: str) -> Report:
    """A finding without a pattern."""
    report = backdoored()
    finding = replace(report.findings[0], detector=detector, searched=None, held_out=None)
    return replace(report, findings=(finding,))


def test_without_a_pattern_it_says_what_is_unusual() -> None:
    assert "with a lead over all other classes that models" in meaning(found_by("mm-bd"))
    assert "an ease, by several ways together, that models" in meaning(found_by("joint"))


def test_a_pattern_is_what_it_is_about() -> None:
    assert "A small change, the same for many images" in meaning(backdoored())
