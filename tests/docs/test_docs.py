"""The documentation against the program, and against itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelaudit.cli.main import app
from tests.docs.checker import (
    broken_links,
    command_lines,
    flags_in,
    flags_of,
    prose,
    require_exit_codes,
    require_valid,
)
from tests.docs.reference import DOCS, pages

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
_NAMES = [path.relative_to(DOCS).as_posix() for path in PAGES]
_each_page = pytest.mark.parametrize("page", PAGES, ids=_NAMES)
#: Of other programs.
_FOREIGN = {"--network"}
_RATE = re.compile(r"\d+/\d+ \[\d+%, \d+%\]")
_WRITTEN = re.compile(r"<!-- measured: .*?<!-- end of measured -->", re.DOTALL)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_reference_is_the_programs(path: Path) -> None:
    expected = pages()[path]()
    assert path.read_text("utf-8") == expected, "write it anew: python -m tests.docs.reference"


@_each_page
def test_command_lines_are_valid(page: Path) -> None:
    for arguments in command_lines(page.read_text("utf-8")):
        try:
            require_valid(arguments)
        except Exception as error:
            pytest.fail(f"modelaudit {' '.join(arguments)}: {error or type(error).__name__}")


@_each_page
def test_flags_and_exit_codes_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert flags_in(prose(text)) <= flags_of(app) | _FOREIGN
    require_exit_codes(text)


@_each_page
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page)


@_each_page
def test_rates_are_in_the_results(page: Path) -> None:
    """What was measured is written down where it was measured, and is not told otherwise here."""
    if page.parent.name == "reference":  # written from the results
        return
    results = "".join(path.read_text("utf-8") for path in ROOT.glob("fixtures/results/*.md"))
    text = _WRITTEN.sub("", page.read_text("utf-8"))
    shown = set(_RATE.findall(prose(text).replace("\n", " ")))
    assert shown <= set(_RATE.findall(re.sub(r"\s+", " ", results)))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("nav:")[2]
    assert [name for name in _NAMES if name not in navigation] == []


def test_paths_of_the_bundled_files_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"fixtures/[\w/]+\.\w+", page.read_text("utf-8")):
            assert (ROOT / path).exists(), (page, path)


def test_command_lines_are_found_and_checked() -> None:
    page = """
```sh
podman build -t modelaudit .
modelaudit scan m.onnx --clean-dir d \\
  --output r.json > out.txt
```
```yaml
script:
  - >-
    modelaudit scan m.onnx
    --clean-dir d
```
"""
    first, second = command_lines(page)
    assert first == ["scan", "m.onnx", "--clean-dir", "d", "--output", "r.json"]
    assert second == ["scan", "m.onnx", "--clean-dir", "d"]
    require_valid(first)
    for wrong in (["scna", "m"], [*second, "--colour"], [*second, "--set", "l-red.colour=1"]):
        with pytest.raises(Exception, match=r"scna|colour"):
            require_valid(wrong)


def test_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is in the docs extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    copy = tmp_path / "repository" / "fixtures" / "results" / "zoo.html"
    assert copy.exists()  # a page that lies outside docs/
