"""What a verdict means, in plain language."""

from __future__ import annotations

from dataclasses import replace

from modelaudit.evidence import of_size
from modelaudit.formats.wording import finding_text, meaning
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
    assert "Shifting the inner layers" in meaning(found_by("l-red-neurons"))
    assert "names no pattern" in meaning(found_by("l-red-neurons"))


def test_a_pattern_of_another_detector_is_not_what_was_tested() -> None:
    report = backdoored()
    lent = replace(report.findings[0], detector="l-red-neurons", size=None)
    assert "is another detector's" in meaning(replace(report, findings=(lent,)))


def test_a_pattern_is_what_it_is_about() -> None:
    report = backdoored()
    assert "A small change, the same for many images" in meaning(report)
    window = replace(report.findings[0], detector="window-margin")
    assert "What one window shows" in meaning(replace(report, findings=(window,)))
    wave = replace(report.findings[0], detector="wave-margin")
    assert "no change of this kind and size" in meaning(replace(report, findings=(wave,)))
    neurons = replace(report.findings[0], detector="neurons-margin", size=None, held_out=None)
    shifted = replace(report, findings=(replace(neurons, searched=None),))
    assert "A small shift of the inner layers" in meaning(shifted)


def test_a_statistic_is_no_size() -> None:
    finding = replace(backdoored().findings[0], size=2.25, unit="larger is more suspicious")
    assert "; statistic 2.25 (larger is more suspicious)" in finding_text(finding)
    assert of_size(2.25, "pixels") == " of size 2.25 (pixels)"
    assert of_size(2.25, "pixels", with_unit=False) == " of size 2.25"
    assert of_size(None, "pixels") == ""
    assert of_size(2.25, "times the median; larger is more suspicious") == ""
