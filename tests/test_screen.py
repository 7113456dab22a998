"""Screening: which inputs carry a trigger, per file, with a guaranteed rate of false alarms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor

from modelaudit import __main__, conditions
from modelaudit.errors import ImagesError, UsageError
from modelaudit.input_files import list_inputs, read_inputs
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain
from modelaudit.report import schema
from modelaudit.run import run_screen
from modelaudit.screen import screen
from modelaudit.screen_checks import Calibration, InputCheck
from modelaudit.screen_options import ScreenOptions
from modelaudit.screen_report import ScreenReport, screen_schema
from tests.command import modelaudit
from tests.conftest import BUNDLED
from tests.test_scan import SHORT
from tests.triggered import IMAGES, halves

SOURCES = (0, 2, 4, 5)  # of the global pattern's nine, to be quick


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    clean, inputs = halves("global", SOURCES, tmp_path_factory.mktemp("screen"))
    (inputs / "broken.png").write_bytes(b"nothing")
    (inputs / "notes.txt").write_text("no image")
    return clean, inputs


def test_triggered_inputs_are_flagged_through_the_command_line(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    clean, inputs = folders
    arguments = ["screen", BUNDLED / "global.pt", "--clean-dir", clean, "--inputs", inputs]
    arguments += ["--detector", "l-red", "--labels", BUNDLED / "labels.txt"]
    done = modelaudit(*arguments, "--superpositions", 25, "--output", tmp_path / "screen.json")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    report = json.loads((tmp_path / "screen.json").read_text())
    jsonschema.Draft202012Validator(screen_schema()).validate(report)
    jsonschema.Draft202012Validator(schema()).validate(report["scan"])
    typed = from_plain(ScreenReport, report)
    assert typed.scan.targets[0].index == 7
    assert [check.name for check in typed.checks] == ["strip", "l-red"]
    flagged = {one.file for one in typed.flagged}
    stamped = {one.file for one in typed.inputs if one.file.startswith("stamped/")}
    assert len(stamped) == 4 * len(SOURCES)
    assert len(flagged & stamped) >= 0.7 * len(stamped)
    assert len(flagged - stamped) <= 0.1 * 40
    assert [one.file for one in typed.unreadable] == ["broken.png"]
    assert typed.directory == str(inputs)
    assert typed.scan.environment["isolation"]
    for word in ("TRIGGER?", "stamped/0-", "Sneaker", "broken.png", "At most 5% of clean inputs"):
        assert word in done.stdout


def quick(model: str, inputs: Path, clean: Path = IMAGES, **options: Any) -> ScreenReport:
    """A scan that finds nothing, and few superpositions."""
    chosen = ScanOptions(BUNDLED / model, clean, detectors=("l-red",), settings=SHORT)
    return screen(ScreenOptions(chosen, inputs, superpositions=10, **options))


def test_without_a_finding_only_strip_judges_and_it_is_said(folders: tuple[Path, Path]) -> None:
    clean, inputs = folders
    report = quick("clean.onnx", inputs / "clean", clean)
    assert [check.name for check in report.checks] == ["strip"]
    assert "found no pattern" in report.skipped[0]
    assert len(report.flagged) <= 0.2 * len(report.inputs)
    assert report.inputs[0].p == min(one.p for one in report.inputs)
    assert all(one.flagged == (one.p <= 0.05) for one in report.inputs)


def test_exit_code_0_when_nothing_is_flagged_and_json_on_stdout(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(list_inputs(folders[1] / "clean" / "0")[0].read_bytes())
    arguments = ["screen", BUNDLED / "clean.onnx", "--clean-dir", IMAGES, "--inputs", tmp_path]
    arguments += ["--detector", "l-red", "--set", "l-red.tau_max=2", "--format", "json"]
    arguments += ["--false-rejection-rate", "0.015", "--superpositions", "10", "--no-isolation"]
    code = __main__.run([str(word) for word in arguments])
    report = json.loads(capsys.readouterr().out)
    assert (code, [one["flagged"] for one in report["inputs"]]) == (0, [False])
    assert report["inputs"][0]["file"] == "one.png"


def test_a_time_budget_ends_the_scan_and_strip_judges_alone(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "time", SimpleNamespace(monotonic=lambda: math.inf))
    arguments = ["screen", BUNDLED / "clean.onnx", "--clean-dir", IMAGES, "--format", "json"]
    arguments += ["--inputs", folders[1] / "clean", "--superpositions", "2", "--no-isolation"]
    __main__.run([str(word) for word in [*arguments, "--time-budget", "2m"]])
    report = json.loads(capsys.readouterr().out)
    assert report["scan"]["settings"]["time_budget"] == 120
    assert report["scan"]["cut_short"]["cause"] == "time budget"
    assert not report["scan"]["cut_short"]["kept"]
    assert [one["name"] for one in report["checks"]] == ["strip"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--inputs", "/no/such/folder"], "does not exist"),
        (["--false-rejection-rate", "0"], "between 0 and 1"),
        (["--false-rejection-rate", "0.001"], "Give more clean images"),
        (["--format", "html"], "text, json"),
        (["--output", "report.txt"], "*.json"),
    ],
)
def test_mistakes_exit_2(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    arguments = ["screen", BUNDLED / "clean.onnx", "--clean-dir", IMAGES, "--no-isolation"]
    arguments += ["--inputs", folders[1] / "clean", "--detector", "l-red"]
    arguments += ["--set", "l-red.tau_max=1", *options]
    assert __main__.run([str(word) for word in arguments]) == 2
    assert words in capsys.readouterr().err


def test_inputs_that_do_not_fit_the_model_are_not_judged(folders: tuple[Path, Path]) -> None:
    chosen = ScanOptions(BUNDLED / "clean.onnx", IMAGES, accuracy_floor=0.99)
    with pytest.raises(ImagesError, match="cannot be screened"):
        run_screen(ScreenOptions(chosen, folders[1]), None)


def test_unreadable_inputs_alone_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ImagesError, match="No image in"):
        quick("clean.onnx", tmp_path)


def test_inputs_are_found_in_nested_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    files = list_inputs(folders[1])
    assert len(files) == 40 + 4 * len(SOURCES) + 1
    assert files == tuple(sorted(files))
    images = read_inputs(files, (1, 28, 28))
    assert len(images.files) == len(images.pixels) == len(files) - 1
    assert list(images.failures) == [folders[1] / "broken.png"]
    with pytest.raises(ImagesError, match="holds no images"):
        list_inputs(tmp_path)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="false-rejection"):
        ScreenOptions(ScanOptions(Path("m"), Path("c")), Path("i"), 1.0)
    with pytest.raises(UsageError, match="superposition"):
        ScreenOptions(ScanOptions(Path("m"), Path("c")), Path("i"), superpositions=0)


def by(values: Callable[[Tensor], Tensor], sign: int, counts: bool = True) -> InputCheck:
    """A check of images of one pixel."""

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        return values(images.flatten()), torch.full((len(images),), counts)

    return InputCheck("check", "value", sign, score)


def one_pixel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_p_is_the_rank_among_the_clean_images() -> None:
    clean = one_pixel(*range(9))
    calibration = Calibration.on([by(lambda x: x, 1)], clean)
    scores, p = calibration.judge(one_pixel(8.5, 8.0, 4.5, -1.0))
    assert p == pytest.approx([0.1, 0.2, 0.5, 1.0])
    assert scores[0] == {"check": 8.5}
    _, p = Calibration.on([by(lambda x: x, -1)], clean).judge(one_pixel(-0.5, 3.5))
    assert p == pytest.approx([0.1, 0.5])


def test_the_largest_of_several_checks_decides_in_deviations() -> None:
    clean = one_pixel(*range(9))
    checks = [by(lambda x: x, 1), by(lambda x: 1000 * x, -1)]
    _, p = Calibration.on(checks, clean).judge(one_pixel(9.0, -1.0, 4.0))
    assert p == pytest.approx([0.1, 0.1, 1.0])


def test_what_does_not_count_and_what_is_no_number_is_not_suspicious() -> None:
    clean = one_pixel(*range(9))
    _, p = Calibration.on([by(lambda x: x, 1, counts=False)], clean).judge(one_pixel(99.0))
    assert p == [1.0]
    scores, p = Calibration.on([by(lambda x: x, 1)], clean).judge(one_pixel(torch.nan))
    assert (scores, p) == ([{"check": None}], [1.0])


def test_a_check_without_any_number_has_a_mean_and_a_deviation_that_json_knows() -> None:
    calibration = Calibration.on([by(lambda x: x * torch.nan, 1)], one_pixel(*range(9)))
    assert (calibration.means, calibration.deviations) == ((0.0,), (0.0,))


def test_false_alarms_are_as_promised() -> None:
    """Clean inputs of any distribution get p at most α in at most a share α of the cases."""
    generator = torch.Generator().manual_seed(0)
    hits = []
    for _ in range(400):
        values = torch.randn(40, generator=generator).exp()
        calibration = Calibration.on([by(lambda x: x, 1)], values[:39].view(-1, 1, 1, 1))
        _, (p,) = calibration.judge(values[39:].view(-1, 1, 1, 1))
        hits.append(p <= 0.05)
    assert sum(hits) / len(hits) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
