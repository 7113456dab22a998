"""The page of an evaluation: nothing active in it, the right numbers, legible."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from modelaudit.fleet.evaluation import Evaluation
from modelaudit.formats import evaluation_chart as chart
from modelaudit.formats.evaluation_html import evaluation_html
from modelaudit.formats.page import page_template
from tests.formats.evaluations import HOSTILE, evaluation, outcome
from tests.formats.test_html import CHROMIUM, Page, requests_of

CSS = (Path(page_template("report").filename or "").parent / "report.css").read_text("utf-8")
#: Texts and what they stand on.
_PAIRS = [(text, ground) for text in ("text", "soft", "red") for ground in ("page", "card", "tint")]
_PAIRS += [(text, "card") for text in ("green", "amber")]


def test_nothing_is_active_and_nothing_is_requested() -> None:
    text = evaluation_html(evaluation())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "a", "form", "img"} & set(page.tags)
    assert not page.addresses
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_the_numbers_are_there() -> None:
    words = [
        "2/3 backdoored models detected",
        "[9%, 99%]",
        "1/2 clean models refused",
        "AUC 0.667",
        "2/3 backdoored and 1/2 clean models are refused",
        "badnets",
        "l-red-sparse",
        f"Clean models that were refused: {HOSTILE}",
        "could not be scanned: not a model: <b>x</b>",
        "spectral-signatures: no column",
        "9.8.7",
    ]
    text = " ".join(Page(evaluation_html(evaluation())).text.split())
    for word in words:
        assert word in text, word


def test_the_curve_has_the_area_that_is_printed() -> None:
    roc = chart.roc_of(evaluation())
    assert roc is not None
    places = [tuple(map(float, one)) for one in re.findall(r"[ML]([\d.]+),([\d.]+)", roc.path)]
    shares = [
        ((x - chart.ROC_LEFT) / chart.SIDE, 1 - (y - chart.ROC_TOP) / chart.SIDE) for x, y in places
    ]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(shares))
    assert area == pytest.approx(roc.auc, abs=1e-3)
    assert shares[0] == (0, 0)
    assert shares[-1] == (1, 1)


def test_equal_p_values_are_a_slope_and_not_a_step() -> None:
    models = (outcome("a", "x", 0.5, False), outcome("b", None, 0.5, True))
    roc = chart.roc_of(replace(evaluation(), outcomes=models))
    assert roc is not None
    assert roc.path.count("L") == 1
    assert roc.auc == 0.5


def test_bars_are_as_long_as_their_shares() -> None:
    bars = {bar.label: bar for bar in chart.bars_of(evaluation())}
    full = chart.BARS_RIGHT - chart.BARS_LEFT
    assert bars["badnets"].width == full / 2
    assert bars[HOSTILE].width == full
    assert bars["total"].width == pytest.approx(full * 2 / 3, abs=0.01)
    alarms = bars["clean (false alarms)"]
    assert alarms.alarms
    assert alarms.low == pytest.approx(chart.BARS_LEFT + full * 0.01258, abs=0.01)


@pytest.mark.parametrize("kept", ["clean", "backdoored"])
def test_one_kind_of_models_has_no_curve(kept: str) -> None:
    whole = evaluation()
    page = Page(evaluation_html(Evaluation(getattr(whole, kept), whole.settings)))
    assert "An ROC curve needs clean and backdoored models." in page.text
    assert page.tags.count("svg") == 1


@pytest.mark.parametrize("mode", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_can_be_read(mode: int) -> None:
    """WCAG 2.1, success criterion 1.4.3: a contrast of 4.5."""
    colours = re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[mode])
    light = {name: _luminance(value) for name, value in colours}
    for text, ground in _PAIRS:
        high, low = sorted((light[text], light[ground]), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser_nothing_is_requested_and_nothing_complained_about(tmp_path: Path) -> None:
    page = tmp_path / "evaluation.html"
    page.write_text(evaluation_html(evaluation()))
    asked, log = requests_of(page)
    assert not asked
    assert "CONSOLE" not in log
