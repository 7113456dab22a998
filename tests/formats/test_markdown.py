"""Markdown in which nothing that the model's author wrote is active."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from modelaudit.evidence import FindingReport
from modelaudit.formats.markdown import escape, render_markdown
from tests.formats.golden import REPORTS
from tests.formats.reports import NAMES, backdoored, clean, failed


def html(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


@pytest.mark.parametrize("name", [*NAMES, "- list", "# title", "a\nb", "&lt;", "\\<b>", "$x$"])
def test_names_are_text(name: str) -> None:
    shown = html(f"x {escape(name)}").strip()
    plain = " ".join(name.split()).replace("@", "@\u200b")
    for raw, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        plain = plain.replace(raw, entity)
    assert shown == f"<p>x {plain}</p>"


def test_addresses_are_no_links() -> None:
    assert "http://" not in escape("http://example.com")
    assert "www." not in escape("www.example.com")


@pytest.mark.parametrize("report", REPORTS)
def test_no_markup_of_the_models_author_survives(report: str) -> None:
    shown = html(render_markdown(REPORTS[report]()))
    for markup in ("<script>", "<a ", "<em>", "<b>", "<code>tick"):
        assert markup not in shown


def test_tables_have_as_many_cells_as_columns() -> None:
    shown = html(render_markdown(backdoored()))
    assert shown.count("<tr>") == 3
    assert shown.count("<td>") == 2 * 5


def test_what_was_looked_for_is_told_where_nothing_was_found() -> None:
    text = render_markdown(clean())
    assert "would have been seen" in text
    assert "no proof" in text


def test_a_failure_has_no_verdict() -> None:
    assert "no verdict" in render_markdown(failed())


def test_a_detector_without_a_pattern_is_told_without_one() -> None:
    report = backdoored()
    blind = FindingReport("l-red-sparse", report.targets[0], None, 0.01, "margin", "no pattern")
    text = render_markdown(replace(report, findings=(blind,)))
    assert "The pattern" not in text
    assert "source classes" not in text
    assert "names no pattern" in text


def test_a_detector_without_a_suspicious_class_says_so() -> None:
    report = clean()
    nothing = replace(report.detectors[0], target=None, shift=None, reason="", p_calibrated=1.0)
    assert "| l-red | none |" in render_markdown(replace(report, detectors=(nothing,)))
