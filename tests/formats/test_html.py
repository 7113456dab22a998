"""The HTML report: one file, nothing active in it, complete; and in a real browser if there is."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from modelaudit.formats.html import render_html
from tests.formats.golden import REPORTS
from tests.formats.reports import backdoored

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
#: How Chromium's log names the initiator of its own requests.
_OWN = "not an origin"
#: Tags without an end.
_VOID = {"meta", "img", "rect", "path", "line", "circle"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects the tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset")]
        assert not [key for key, _ in attrs if key.startswith("on")]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("report", REPORTS)
def test_nothing_is_active_and_nothing_is_requested(report: str) -> None:
    text = render_html(REPORTS[report]())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "a", "form"} & set(page.tags)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_everything_that_an_auditor_needs_is_there() -> None:
    report = backdoored()
    page = Page(render_html(report))
    words = [
        "backdoored: target class 3 (Dress)",
        "flips 63 of 64 held-out images [92%, 100%]",
        "<script>alert(1)",
        "refused below 21.9",
        "refused below 1.53",
        "Source classes",
        "7.5e-13",
        "clean-accuracy",
        "tau_max = 64",
        report.model.sha256,
        report.images.sha256,
        "What was looked for",
        "Limits",
        "There is no verdict “clean”",
    ]
    for word in words:
        assert word in page.text, word
    assert page.tags.count("img") == 4
    assert page.tags.count("svg") == 2
    assert page.tags.count("circle") == 19  # no pattern was found for one class of one detector


def test_many_classes_are_cut_short() -> None:
    report = backdoored()
    detector = report.detectors[1]
    classes = tuple(replace(detector.classes[t % 10], target=t) for t in range(1000))
    names = tuple(f"class {t}" for t in range(1000))
    many = replace(
        report,
        model=replace(report.model, classes=names),
        detectors=(replace(detector, classes=classes),),
    )
    text = render_html(many)
    assert "980 less suspicious classes are not shown" in Page(text).text
    assert len(text.encode()) < 100_000


def test_a_detector_without_sizes_is_drawn_by_its_statistic() -> None:
    report = backdoored()
    detector = report.detectors[1]
    classes = tuple(replace(one, size=one.statistic) for one in detector.classes)
    bare = replace(report, detectors=(replace(detector, classes=classes),))
    assert "refused above 0.0456" in Page(render_html(bare)).text


def browser(*options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    fixed += ["--enable-logging=stderr", "--disable-background-networking"]
    return subprocess.run(
        [CHROMIUM, *fixed, *options], capture_output=True, text=True, check=True, timeout=60
    )


def requests_of(page: Path) -> tuple[set[str], str]:
    """Addresses that a page asks for, without those that the browser asks for itself; its log."""
    log = page.with_suffix(".net.json")
    done = browser(f"--log-net-log={log}", f"--screenshot={log}.png", page.as_uri())
    params = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {p["url"] for p in params if "url" in p and p.get("initiator", _OWN) != _OWN}
    return asked, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser_nothing_is_requested_and_nothing_complained_about(tmp_path: Path) -> None:
    page, control = tmp_path / "report.html", tmp_path / "control.html"
    page.write_text(render_html(backdoored()))
    asked, log = requests_of(page)
    assert not asked
    assert "CONSOLE" not in log
    control.write_text("<script>console.error('x')</script><img src='http://127.0.0.1:9/x.png'>")
    asked, log = requests_of(control)
    assert asked == {"http://127.0.0.1:9/x.png"}
    assert "CONSOLE" in log


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser_the_pictures_are_shown(tmp_path: Path) -> None:
    """The page's own policy forbids scripts; a copy without it can count."""
    page = tmp_path / "probe.html"
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    count = (
        "<script>onload = () => { const all = [...document.images];"
        "const ok = all.filter(i => i.complete && i.naturalWidth > 0).length;"
        "document.title = `${ok} of ${all.length} pictures` }</script></body>"
    )
    text = re.sub(policy, "", render_html(backdoored()))
    page.write_text(text.replace("</body>", count))
    assert "<title>4 of 4 pictures</title>" in browser("--dump-dom", page.as_uri()).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_in_a_browser_dark_mode_is_dark(tmp_path: Path, scheme: int, dark: bool) -> None:
    page, shot = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(render_html(backdoored()))
    scheme_option = f"--blink-settings=preferredColorScheme={scheme}"
    browser(scheme_option, "--window-size=900,700", f"--screenshot={shot}", page.as_uri())
    with Image.open(io.BytesIO(shot.read_bytes())) as image:
        corner = image.convert("L").getpixel((3, 3))
    assert isinstance(corner, int)
    assert (corner < 60) == dark
