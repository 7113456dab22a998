"""The files and the code that the pages show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelaudit.cli.flags import flags_of, prepared
from modelaudit.cli.main import app
from modelaudit.config import read_settings
from modelaudit.fleet.manifest import read_fleet, read_manifest
from modelaudit.model_config import read_model_config
from modelaudit.waivers import read_waivers
from tests.docs.reference import DOCS


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    fenced = rf"^```{language}\n(.*?)^```"
    return re.findall(fenced, page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def _settings(path: Path) -> object:
    return read_settings(flags_of(prepared(app)), path, path.parent)


#: Page, language and place of a block, the name of such a file, and what reads it.
_FILES: list[tuple[str, str, int, str, Callable[[Path], object]]] = [
    ("settings", "toml", 0, "modelaudit.toml", _settings),
    ("settings", "toml", 1, "waivers.toml", read_waivers),
    ("preprocessing", "toml", 0, "modelaudit.toml", lambda path: read_model_config(path.parent)),
    ("evaluate", "json", 0, "manifest.json", read_manifest),
    ("sweep", "json", 0, "models.json", read_fleet),
]


@pytest.mark.parametrize(
    ("page", "language", "place", "name", "read"), _FILES, ids=[f"{f[0]}-{f[3]}" for f in _FILES]
)
def test_files_can_be_read(
    tmp_path: Path,
    page: str,
    language: str,
    place: int,
    name: str,
    read: Callable[[Path], object],
) -> None:
    path = tmp_path / name
    path.write_text(blocks(DOCS / "how-to" / f"{page}.md", language)[place], encoding="utf-8")
    assert read(path)


def test_every_such_file_is_read() -> None:
    shown = {
        (page.stem, language, place)
        for page in (DOCS / "how-to").glob("*.md")
        for language in ("toml", "json")
        for place, _ in enumerate(blocks(page, language))
    }
    assert shown == {file[:3] for file in _FILES} | {("detector", "toml", 0)}


def test_python_is_valid() -> None:
    shown = [one for page in DOCS.rglob("*.md") for one in blocks(page, "python")]
    assert shown
    for code in shown:
        compile(code, "<docs>", "exec")


def test_the_example_detector_is_the_one_that_is_tested() -> None:
    page = DOCS / "how-to" / "detector.md"
    example = DOCS.parent / "tests" / "data" / "example_detector"
    assert blocks(page, "toml")[0].strip() in (example / "pyproject.toml").read_text("utf-8")
    assert blocks(page, "python")[0].splitlines()[-1] in (
        (example / "example_detector.py").read_text("utf-8").splitlines()
    )
