"""What the reports for people say of a class whose pattern has no size."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from modelaudit.formats.html import render_html
from modelaudit.formats.text import render_text
from modelaudit.report import Report
from tests.formats.reports import clean

STEPS = 64


def raced(race: float, steps: int) -> Report:
    """With one detector, whose class 7 has no size after so many steps."""
    report = clean()
    detector = report.detectors[0]
    classes = tuple(
        replace(one, steps=steps) if one.size is None else one for one in detector.classes
    )
    settings = {**detector.settings, "race": race, "tau_max": STEPS}
    return replace(report, detectors=(replace(detector, classes=classes, settings=settings),))


@pytest.mark.parametrize("render", [render_text, render_html])
@pytest.mark.parametrize(
    ("race", "steps", "words", "not_words"),
    [
        (1.5, 40, "larger", "none"),
        (1.5, STEPS, "none", "larger"),  # the search went to its end
        (0.0, 40, "none", "larger"),
    ],
)
def test_a_target_that_was_stopped_has_a_larger_pattern_and_not_none(
    render: Callable[[Report], str], race: float, steps: int, words: str, not_words: str
) -> None:
    text = render(raced(race, steps))
    assert re.search(rf"(>|  ){words}\b", text)
    assert not re.search(rf"(>|  ){not_words}\b", text)
