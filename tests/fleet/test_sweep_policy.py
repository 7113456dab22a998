"""What verdicts lead to in a sweep: waivers, ``--fail-on``, and both after a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelaudit import __main__, policy
from modelaudit.errors import WorkerCrashError
from modelaudit.fleet import local as fleet_local
from modelaudit.fleet.sweep_summary import SweptModel, sweep_schema
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.options import ScanOptions
from modelaudit.plain import to_plain
from modelaudit.report import Report, schema
from tests.brightest import brightest, write_images
from tests.formats import reports

WAIVER = '[[waiver]]\nsha256 = "{}"\nreason = "#12"\nowner = "jane"\nexpires = {}\n'


def _crashed() -> Report:
    raise WorkerCrashError("it crashed")


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "today", lambda: date(2026, 3, 1))


class Sweep:
    """Sweeps over a folder, with scans that find what they are told to.

    Attributes:
        finds: file -> what the scan of it finds.
        sha256: what every scan says of its model; ``None`` for the truth.
        scanned: the options of the scans of the last sweep.
        text, error: what it printed.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.models, self.reports = folder / "fleet", folder / "reports"
        self.finds: dict[str, Callable[[], Report]] = {}
        self.sha256: str | None = None
        self.scanned: list[ScanOptions] = []
        self._capsys = capsys

    def __call__(self, *arguments: object, report_format: str = "json") -> int:
        self.scanned.clear()
        where = ["--report-dir", self.reports, "--report-format", report_format]
        command = ["sweep", self.models, "--no-isolation", *where, *arguments]
        code = __main__.run([str(one) for one in command])
        self.text, self.error = (" ".join(one.split()) for one in self._capsys.readouterr())
        return code

    def scan(self, options: ScanOptions, limits: Any) -> Report:
        self.scanned.append(options)
        report = self.finds[options.model.name]()
        sha256 = self.sha256 or sha256_of(options.model)
        return replace(report, model=replace(report.model, path=str(options.model), sha256=sha256))

    @property
    def names(self) -> list[str]:
        return [one.model.name for one in self.scanned]

    def summary(self) -> Any:
        return self._read("sweep.json", sweep_schema())

    def report(self, name: str) -> Any:
        return self._read(f"{name}.json", schema())

    def _read(self, name: str, form: dict[str, Any]) -> Any:
        content = json.loads((self.reports / name).read_text())
        jsonschema.Draft202012Validator(form).validate(content)
        return content


@pytest.fixture
def sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Sweep:
    """Over ``a.onnx``, in which a backdoor is found, and ``b.onnx``, in which none is."""
    sweep = Sweep(tmp_path, capsys)
    sweep.models.mkdir()
    brightest(sweep.models / "a.onnx")
    brightest(sweep.models / "b.onnx", tail="Softmax")
    write_images(sweep.models / "images")
    sweep.finds = {"a.onnx": reports.backdoored, "b.onnx": reports.clean}
    monkeypatch.setattr(fleet_local, "run_scan", sweep.scan)
    return sweep


@pytest.fixture
def waivers(sweep: Sweep, tmp_path: Path) -> Path:
    """A waiver of ``a.onnx``."""
    path = tmp_path / "waivers.toml"
    path.write_text(WAIVER.format(sha256_of(sweep.models / "a.onnx"), "2026-03-01"))
    return path


def test_a_waived_model_does_not_fail_the_sweep(sweep: Sweep, waivers: Path) -> None:
    assert sweep("--output", sweep.reports / "s.md", "--waivers", waivers) == 0
    summary = sweep.summary()
    assert (summary["waived"], summary["exit_code"], summary["counts"]["backdoored"]) == (1, 0, 1)
    told = "a.onnx: Waived by jane until 2026-03-01: #12"
    for words in ("backdoored (waived)", "1 no-backdoor-found, 1 waived", told):
        assert words in sweep.text
        assert words.replace("#", "\\#") in (sweep.reports / "s.md").read_text()
    (waiver,) = summary["models"][0]["policy"]["waivers"]
    assert (waiver["status"], waiver["owner"], waiver["expires"]) == (
        *("applied", "jane"),
        "2026-03-01",
    )
    report = sweep.report("a.onnx")
    assert report["verdict"] == "backdoored"
    assert report["policy"] == summary["models"][0]["policy"]
    assert sweep.report("b.onnx")["policy"]["waivers"] == []


def test_what_is_finished_is_judged_by_the_waivers_of_today(sweep: Sweep, waivers: Path) -> None:
    def again(*arguments: object) -> int:
        code = sweep(*arguments, report_format="json,html")
        assert sweep.names == []
        assert sweep.report("a.onnx")["policy"] == sweep.summary()["models"][0]["policy"]
        return code

    assert sweep(report_format="json,html") == 1
    first = {path: path.read_text() for path in sweep.reports.iterdir()}
    assert again("--waivers", waivers) == 0
    assert "Waived by jane" in (sweep.reports / "a.onnx.html").read_text()
    waivers.write_text(waivers.read_text().replace("2026-03-01", "2026-02-28"))
    assert again("--waivers", waivers) == 1
    assert "error: the waiver of" in sweep.error
    assert "a.onnx: The waiver by jane expired on 2026-02-28 and is not applied" in sweep.text
    assert "expired on 2026-02-28" in (sweep.reports / "a.onnx.html").read_text()
    assert again() == 1
    assert {path: path.read_text() for path in sweep.reports.iterdir()} == first


def test_reports_that_cannot_be_written_again_cost_a_scan(sweep: Sweep, waivers: Path) -> None:
    """The policy of ``b.onnx`` is the same."""
    assert sweep(report_format="html") == 1
    assert sweep("--waivers", waivers, report_format="html") == 0
    assert sweep.names == ["a.onnx"]
    assert sweep(report_format="json") == 1
    (sweep.reports / "a.onnx.json").write_text("{}")
    assert sweep("--waivers", waivers) == 0
    assert sweep.names == ["a.onnx"]


def test_a_report_of_another_file_is_not_written_again(sweep: Sweep, waivers: Path) -> None:
    """Even if it says the same."""
    assert sweep() == 1
    path = sweep.reports / "a.onnx.json"
    path.write_text(path.read_text().replace(sha256_of(sweep.models / "a.onnx"), "0" * 64))
    assert sweep("--waivers", waivers) == 0
    assert sweep.names == ["a.onnx"]
    assert sweep.report("a.onnx")["model"]["sha256"] == sha256_of(sweep.models / "a.onnx")


def test_the_hash_is_the_one_that_this_process_computed(sweep: Sweep, waivers: Path) -> None:
    """A worker that was taken over could send the hash of a waived model, now or earlier."""
    sweep.finds["b.onnx"] = reports.backdoored
    sweep.sha256 = sha256_of(sweep.models / "a.onnx")
    assert sweep() == 1
    assert sweep("--waivers", waivers) == 2
    assert sweep.names == ["b.onnx"]
    assert "b.onnx is not the file that was scanned" in sweep.text
    assert [one["verdict"] for one in sweep.summary()["models"]] == ["backdoored", "error"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 1),
        (["--fail-on", "inconclusive,error"], 2),
        (["--fail-on", "inconclusive"], 3),
        (["--fail-on", "error"], 2),
        (["--exit-zero"], 0),
    ],
)
def test_the_worst_model_that_is_named_decides(
    sweep: Sweep, arguments: list[str], code: int
) -> None:
    brightest(sweep.models / "c.onnx")
    sweep.finds |= {"b.onnx": reports.inconclusive, "c.onnx": _crashed}
    assert sweep(*arguments) == code
    assert sweep.summary()["exit_code"] == code
    assert sweep.report("c.onnx")["verdict"] == "error"
    assert ("so it lets this verdict pass" in sweep.text) == bool(arguments)


def test_faults_and_wrong_usage_fail_whatever_the_policy_is(sweep: Sweep, tmp_path: Path) -> None:
    sweep.finds["a.onnx"] = lambda: [][0]
    assert sweep("--exit-zero") == 2
    assert "internal error: IndexError" in sweep.text
    for arguments, words in (
        (["--fail-on", "clean"], "expected one of backdoored"),
        (["--fail-on", "error", "--exit-zero"], "exclude each other"),
        (["--waivers", tmp_path / "none.toml"], "none.toml"),
        (["--time-budget", "soon"], "--time-budget soon"),
    ):
        assert sweep(*arguments) == 2
        assert words in sweep.error
        assert sweep.names == []


def test_forgotten_images_fail_whatever_the_policy_is(sweep: Sweep, tmp_path: Path) -> None:
    (sweep.models / "images").rename(tmp_path / "clean")
    assert sweep("--fail-on", "backdoored") == 2
    assert sweep.names == []
    assert "give --clean-dir" in sweep.text
    assert sweep("--exit-zero", "--clean-dir", tmp_path / "clean") == 0
    assert sweep.names == ["a.onnx", "b.onnx"]


def test_a_scan_that_was_cut_short_is_repeated_when_there_is_more_time(sweep: Sweep) -> None:
    sweep.finds["b.onnx"] = reports.cut_short
    assert sweep("--time-budget", "90s") == 1
    assert [one.time_budget for one in sweep.scanned] == [90, 90]
    summary = sweep.summary()
    assert summary["settings"]["time_budget"] == 90
    assert summary["models"][0]["cut_short"] is None
    assert summary["models"][1]["cut_short"]["left_out"][0]["detector"] == "l-red-warp"
    assert "b.onnx: Cut short: the time budget was used up. Not looked for: warps" in sweep.text
    for budget in ("90s", "60s"):
        sweep("--time-budget", budget)
        assert sweep.names == []
        assert sweep.summary()["models"][1]["cut_short_after"] == 90
    sweep("--time-budget", "2m")
    assert sweep.names == ["b.onnx"]
    sweep.finds["b.onnx"] = reports.clean
    sweep()
    assert sweep.names == ["b.onnx"]
    sweep("--time-budget", "1s")
    assert sweep.names == []


def test_a_summary_of_an_earlier_version_is_read(sweep: Sweep) -> None:
    assert sweep() == 1
    summary = sweep.summary()
    entries = [dict(one) for one in summary["models"]]
    for one in entries:
        del one["policy"], one["cut_short"], one["cut_short_after"]
    assert [to_plain(SweptModel.from_dict(one))["policy"] for one in entries] == [None, None]
    older = {**summary, "models": entries}
    (sweep.reports / "sweep.json").write_text(json.dumps(older))
    assert sweep() == 1
    assert sweep.names == []
    assert sweep.summary() == summary
