"""Sweeps: every model once, a summary, reports, the worst exit code, and no scan twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelaudit import __main__
from modelaudit.evidence import Target
from modelaudit.failure import failure_of
from modelaudit.fleet import local as fleet_local
from modelaudit.fleet.runner import Job
from modelaudit.fleet.sweep_reports import ReportFolder
from modelaudit.fleet.sweep_summary import (
    SWEEP_SCHEMA_VERSION,
    SweepSummary,
    SweptModel,
    sweep_schema,
    swept_model,
)
from modelaudit.formats.sweep import SUMMARY_FORMATS, sweep_line
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain
from modelaudit.report import schema
from tests.brightest import brightest, write_images
from tests.formats import reports

QUICK = ["--detector", "l-red", "--set", "l-red.tau_max=2"]


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Two models, one of them twice, one that is broken; and images."""
    folder = tmp_path / "fleet"
    (folder / "deep").mkdir(parents=True)
    brightest(folder / "a.onnx")
    (folder / "a.pt").write_bytes(b"the same in another format")
    brightest(folder / "deep" / "b.onnx")
    (folder / "deep" / "broken.onnx").write_bytes(b"nothing")
    write_images(folder / "images")
    return folder


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are scanned."""
    names = []
    scan = fleet_local.run_scan

    def watched(options: ScanOptions, limits: Any) -> Any:
        names.append(options.model.name)
        return scan(options, limits)

    monkeypatch.setattr(fleet_local, "run_scan", watched)
    return names


def sweep(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a sweep in this process; exit code, stdout and stderr."""
    quick = [*QUICK, "--no-isolation", "--one-format"]
    code = __main__.run(["sweep", *map(str, arguments), *quick])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_summary_and_reports(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scanned: list[str]
) -> None:
    folder = tmp_path / "reports"
    options = ["--report-dir", folder, "--report-format", "json,html"]
    code, text, _ = sweep(capsys, fleet, *options, "--output", folder / "summary.md")
    assert code == 2
    assert scanned == ["a.onnx", "b.onnx", "broken.onnx"]
    for words in (
        "deep/b.onnx inconclusive",
        "deep/broken.onnx error",
        "0 backdoored, 1 error, 2 inconclusive, 0 no-backdoor-found",
        "a.onnx: not scanned, as other formats of it: a.pt",
        "deep/broken.onnx: error while loading the model: ",
    ):
        assert words in " ".join(text.split())
    summary = json.loads((folder / "sweep.json").read_text())
    jsonschema.Draft202012Validator(sweep_schema()).validate(summary)
    assert (summary["exit_code"], summary["total"]) == (2, 3)
    assert "deep/broken.onnx | ❌ error" in (folder / "summary.md").read_text()
    for one in summary["models"]:
        path, page = (folder / name for name in one["reports"])
        report = json.loads(path.read_text())
        jsonschema.Draft202012Validator(schema()).validate(report)
        assert (report["verdict"], report["model"]["sha256"]) == (one["verdict"], one["sha256"])
        assert page.read_text().startswith("<!DOCTYPE html>")


def test_only_what_changed_is_scanned_again(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scanned: list[str]
) -> None:
    (fleet / "deep" / "broken.onnx").unlink()
    folder = tmp_path / "reports"

    def again(*more: object) -> list[str]:
        scanned.clear()
        assert sweep(capsys, fleet, "--report-dir", folder, *more)[0] == 3
        return scanned

    assert again() == ["a.onnx", "b.onnx"]
    first = (folder / "sweep.json").read_text()
    assert again() == []
    assert (folder / "sweep.json").read_text() == first
    brightest(fleet / "a.onnx", tail="Softmax")
    assert again() == ["a.onnx"]
    (folder / "deep" / "b.onnx.json").unlink()
    assert again() == ["b.onnx"]
    assert again("--seed", 1) == ["a.onnx", "b.onnx"]
    (fleet / "images" / "0" / "0.png").rename(fleet / "images" / "0" / "9.png")
    assert again("--seed", 1) == ["a.onnx", "b.onnx"]
    brightest(fleet / "new.onnx")
    assert again("--seed", 1) == ["new.onnx"]
    fleet = fleet.rename(tmp_path / "moved")
    assert again("--seed", 1) == []
    models = json.loads((folder / "sweep.json").read_text())["models"]
    assert models[0]["file"] == str(fleet / "a.onnx")


def test_an_interrupted_sweep_goes_on_where_it_stopped(
    fleet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scanned: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "summary.json"
    with monkeypatch.context() as patch:
        patch.setattr(fleet_local, "run_scan", _interrupted_at("b.onnx", fleet_local.run_scan))
        assert sweep(capsys, fleet, "--output", output)[0] == 130
    summary = json.loads(output.read_text())
    jsonschema.Draft202012Validator(sweep_schema()).validate(summary)
    assert ([one["name"] for one in summary["models"]], summary["total"]) == (["a.onnx"], 3)
    scanned.clear()
    assert sweep(capsys, fleet, "--output", output)[0] == 2
    assert scanned == ["b.onnx", "broken.onnx"]


def _interrupted_at(name: str, scan: Any) -> Any:
    def interrupted(options: ScanOptions, limits: Any) -> Any:
        if options.model.name == name:
            raise KeyboardInterrupt
        return scan(options, limits)

    return interrupted


def test_models_without_images_are_errors_of_their_own(
    fleet: Path, capsys: pytest.CaptureFixture[str], scanned: list[str]
) -> None:
    images = (fleet / "images").rename(fleet / "clean")
    entries = [{"file": "a.onnx", "clean_dir": "clean"}, {"file": "deep/b.onnx"}]
    manifest = fleet / "models.json"
    manifest.write_text(json.dumps({"models": entries}))
    code, text, _ = sweep(capsys, manifest)
    assert (code, scanned) == (2, ["a.onnx"])
    assert "give --clean-dir" in text
    scanned.clear()
    code, text, _ = sweep(capsys, manifest, "--clean-dir", images, "--quiet")
    assert (code, scanned) == (3, ["a.onnx", "b.onnx"])
    assert text.splitlines() == [
        f"{manifest}: 0 backdoored, 0 error, 2 inconclusive, 0 no-backdoor-found"
    ]


def test_wrong_usage(fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "mine.json"
    foreign.write_text('{"my": "data"}')
    for arguments, words in (
        ([tmp_path / "missing"], "There is no"),
        ([fleet, "--format", "html"], "expected one of text, json, markdown"),
        ([fleet, "--report-format", "json,pdf"], "--report-format pdf"),
        ([fleet, "--output", tmp_path / "s.html"], "no format of a summary"),
        ([fleet, "--output", tmp_path / "no" / "s.json"], "no folder"),
        ([fleet, "--report-dir", foreign], "--report-dir"),
        ([fleet, "--output", foreign], "not a summary of a sweep to resume from"),
        ([fleet, "--exclude", "*"], "--exclude names"),
        ([fleet, "--clean-dir", tmp_path / "none"], "none: there is no such folder"),
        ([fleet, "--clean-dir", foreign], "mine.json: there is no such folder"),
        ([fleet, "--jobs", 2, "--ray"], "exclude each other"),
    ):
        code, out, error = sweep(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in error
    assert foreign.read_text() == '{"my": "data"}'


def swept(name: str, verdict: str) -> SweptModel:
    """An entry with that verdict."""
    job = Job(name, "key", ScanOptions(Path(name), Path("images")))
    results = {
        "backdoored": reports.backdoored,
        "error": lambda: failure_of(Path(name), OSError("gone")),
        "inconclusive": reports.inconclusive,
        "no-backdoor-found": reports.clean,
    }
    return swept_model(job, results[verdict](), "images", (), ())


def summary_of(*verdicts: str) -> SweepSummary:
    models = tuple(swept(f"{i}.onnx", verdict) for i, verdict in enumerate(verdicts))
    return SweepSummary(SWEEP_SCHEMA_VERSION, "fleet", len(models), models, {"alpha": 0.05})


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("no-backdoor-found",), 0),
        (("no-backdoor-found", "inconclusive"), 3),
        (("inconclusive", "error", "no-backdoor-found"), 2),
        (("error", "inconclusive", "backdoored", "no-backdoor-found"), 1),
    ],
)
def test_the_worst_model_decides(verdicts: tuple[str, ...], code: int) -> None:
    summary = summary_of(*verdicts)
    assert summary.exit_code == code
    content = json.loads(SUMMARY_FORMATS["json"](summary))
    jsonschema.Draft202012Validator(sweep_schema()).validate(content)
    assert tuple(from_plain(SweptModel, one) for one in content["models"]) == summary.models


def test_every_format_names_every_model_its_target_and_its_p() -> None:
    summary = summary_of("backdoored", "error", "no-backdoor-found")
    target = summary.models[0].targets[0]
    many = replace(summary.models[0], targets=(target, Target(9, "nine")))
    summary = replace(summary, models=(many, *summary.models[1:]), total=5)
    for name in ("text", "markdown"):
        text = SUMMARY_FORMATS[name](summary)
        for words in ("0.onnx", "1.onnx", "2.onnx", f"{target.index} (", "and 1 more", "gone"):
            assert words in text, (name, words)
        assert "2 not scanned yet" in text
    assert sweep_line(summary).endswith("1 no-backdoor-found, 2 not scanned yet")


def test_names_of_files_steer_no_terminal_and_no_page() -> None:
    odd = replace(swept("x", "error"), name="\x1b[2J<b>|\udcff", others=("`rm`",))
    summary = replace(summary_of("inconclusive"), models=(odd,))
    for name, render in SUMMARY_FORMATS.items():
        text = render(summary)
        assert "\x1b" not in text, name
        text.encode()
    assert "\\<b\\>\\|" in SUMMARY_FORMATS["markdown"](summary)


def test_reports_have_names_of_their_own_in_the_folder(tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path, ("json", "cyclonedx"))
    assert folder.names("a/b.onnx") == ("a/b.onnx.json", "a/b.onnx.cdx.json")
    odd = ["../x", "/etc/x", "a/../x", "a b", "a_b", "", ".", ".x", "\udcff", "a" * 300 + "/ü"]
    odd += ["c" * 245, "sweep", "d.json/e", "d"]
    names = [folder.names(name)[0] for name in odd]
    assert len({name.lower() for name in names}) == len(odd)
    for name in names:
        path = (tmp_path / name).resolve()
        assert path.is_relative_to(tmp_path)
        assert len(path.name) < 200
    assert not folder.have("a b")
    for name in odd:
        folder.write(name, reports.clean())
        assert folder.have(name)
