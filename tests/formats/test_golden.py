"""Every format of every kind of report, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelaudit.formats import FORMATS, format_for
from tests.formats.golden import FOLDER, REPORTS, cases
from tests.formats.reports import all_to_all


@pytest.mark.parametrize(("report", "name", "path"), list(cases()), ids=lambda value: str(value))
def test_golden(report: str, name: str, path: Path) -> None:
    """If the change is meant: ``python -m tests.formats.golden``."""
    assert FORMATS[name](REPORTS[report]()) == path.read_text(encoding="utf-8")


def test_every_golden_file_has_a_case_and_its_extension_says_the_format() -> None:
    known = {path: name for _, name, path in cases()}
    assert set(FOLDER.iterdir()) == set(known)
    for path, name in known.items():
        assert format_for(path).name == name


@pytest.mark.parametrize("name", FORMATS)
def test_all_to_all_attacks_are_named_so(name: str) -> None:
    text = FORMATS[name](all_to_all())
    assert "all-to-all" in text
    assert "None" not in text


def test_the_longest_extension_counts() -> None:
    assert format_for(Path("a.sarif.json")).name == "sarif"
    assert format_for(Path("a.cdx.json")).name == "cyclonedx"
    assert format_for(Path("cdx.json")).name == "json"
