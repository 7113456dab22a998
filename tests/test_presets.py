"""``--fast`` and ``--thorough``: which detectors run; ``--pictures``: what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors import registry
from modelaudit import __main__
from modelaudit.scanning import build_detectors
from tests.conftest import BUNDLED

SCAN = ["scan", str(BUNDLED / "badnets.onnx"), "--clean-dir", str(BUNDLED / "images")]


def test_presets() -> None:
    assert list(build_detectors((), {})) == list(registry.default_names())
    assert set(build_detectors((), {}, "thorough")) == set(registry.REGISTRY)
    fast = list(build_detectors((), {}, "fast"))
    assert fast[0] == "l-red"
    assert set(fast) <= {"l-red", "mm-bd"}
    assert list(build_detectors(("l-red-warp",), {}, "thorough")) == ["l-red-warp"]


@pytest.mark.parametrize("command", [SCAN, ["evaluate", str(BUNDLED / "manifest.json")]])
@pytest.mark.parametrize(
    "both", [["--fast", "--thorough"], ["--fast", "--detector", "l-red"], ["--thorough", "--fast"]]
)
def test_they_exclude_each_other(
    capsys: pytest.CaptureFixture[str], command: list[str], both: list[str]
) -> None:
    assert __main__.run([*command, *both]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_pictures_need_a_folder_that_can_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "no" / "folder"):
        assert __main__.run([*SCAN, "--pictures", str(bad)]) == 2
        assert "--pictures" in capsys.readouterr().err


def test_a_scan_with_pictures_and_held_out_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, page = tmp_path / "pictures", tmp_path / "report.html"
    options = ["--detector", "l-red-sparse", "--images-per-class", "2", "--no-isolation", "--quiet"]
    outputs = ["--pictures", str(folder), "--output", str(page)]
    assert __main__.run([*SCAN, *options, *outputs]) == 1
    kinds = ("clean", "difference", "pattern", "stamped")
    assert sorted(f.name for f in folder.iterdir()) == [f"target-3-{kind}.png" for kind in kinds]
    text = page.read_text()
    assert "held-out images [" in text
    assert len(text.encode()) < 2**20
    assert "backdoored" in capsys.readouterr().out
