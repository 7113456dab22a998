"""Which verdicts fail the command, and waivers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from modelaudit import __main__, policy
from modelaudit.cut_short import CutShort
from modelaudit.errors import (
    InternalError,
    ModelFileError,
    ScanInterrupted,
    UsageError,
    WorkerCrashError,
)
from modelaudit.evidence import Target
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.policy import FAILING, Policy
from modelaudit.report import Report
from modelaudit.waivers import Waiver, read_waivers
from tests.conftest import BUNDLED
from tests.formats.reports import backdoored, clean, failed, inconclusive

MODEL = BUNDLED / "badnets.onnx"
SHA256 = backdoored().model.sha256
DAY = date(2026, 3, 1)


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "today", lambda: DAY)


def waiver(**changes: Any) -> Waiver:
    return replace(Waiver(SHA256, "reviewed", "jane", DAY), **changes)


def outcome(report: Report, *waivers: Waiver) -> tuple[int, list[str]]:
    """Exit code and the status of each waiver."""
    judged = Policy(waivers=waivers).judged(report, report.model.sha256)
    assert judged.verdict is report.verdict
    assert judged.policy is not None
    return judged.policy.exit_code, [one.status for one in judged.policy.waivers]


@pytest.mark.parametrize(
    ("fail_on", "exit_zero", "codes"),
    [
        (None, False, (1, 3, 2)),
        (["backdoored"], False, (1, 0, 0)),
        (["inconclusive", "error"], False, (0, 3, 2)),
        (["backdoored, error"], False, (1, 0, 2)),
        (None, True, (0, 0, 0)),
    ],
)
def test_a_verdict_that_is_not_named_exits_0(
    fail_on: list[str] | None, exit_zero: bool, codes: tuple[int, int, int]
) -> None:
    chosen = Policy.parse(fail_on, exit_zero, None)
    reports = [chosen.judged(one, None).policy for one in (backdoored(), inconclusive(), clean())]
    assert [one.exit_code for one in reports if one] == [codes[0], codes[1], 0]
    assert chosen.exit_code_of(WorkerCrashError("it crashed")) == codes[2]
    judged = chosen.judged_failure(failed())
    assert judged.policy is not None
    assert judged.policy.exit_code == codes[2]
    assert judged.verdict == "error"


def test_usage_faults_and_interruptions_keep_their_codes() -> None:
    lenient = Policy.parse(None, True, None)
    for error in (UsageError("x"), InternalError("x"), RuntimeError("x")):
        assert lenient.exit_code_of(error) == 2
    assert lenient.exit_code_of(ScanInterrupted()) == 130
    report = replace(clean(), cut_short=CutShort("interrupted", ()))
    judged = lenient.judged(report, None).policy
    assert judged is not None
    assert judged.exit_code == 130


def test_unknown_verdicts_and_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="expected one of backdoored, inconclusive, error"):
        Policy.parse(["clean"], False, None)
    with pytest.raises(UsageError, match="exclude each other"):
        Policy.parse(["error"], True, None)


def test_a_waiver_lets_the_model_pass_until_its_last_day() -> None:
    assert outcome(backdoored()) == (1, [])
    assert outcome(backdoored(), waiver()) == (0, ["applied"])
    assert outcome(inconclusive(), waiver()) == (0, ["applied"])
    assert outcome(backdoored(), waiver(expires=date(2026, 2, 28))) == (1, ["expired"])
    assert outcome(backdoored(), waiver(sha256="0" * 64)) == (1, [])
    assert outcome(clean(), waiver()) == (0, [])


def test_a_waiver_for_another_verdict_or_target_does_not_apply() -> None:
    assert outcome(backdoored(), waiver(verdict="backdoored")) == (0, ["applied"])
    assert outcome(backdoored(), waiver(verdict="inconclusive")) == (1, ["not-covering"])
    assert outcome(backdoored(), waiver(target=3)) == (0, ["applied"])
    assert outcome(backdoored(), waiver(target="Dress")) == (0, ["applied"])
    assert outcome(backdoored(), waiver(target=4)) == (1, ["not-covering"])
    assert outcome(inconclusive(), waiver(target=3)) == (3, ["not-covering"])


def test_every_target_must_be_covered() -> None:
    report = replace(backdoored(), targets=(Target(3, "Dress"), Target(5, "Sandal")))
    assert outcome(report, waiver(target=3)) == (1, ["not-covering"])
    assert outcome(report, waiver(target=3), waiver(target=5)) == (0, ["applied", "applied"])


def test_the_hash_is_the_one_that_this_process_computed() -> None:
    """A worker that was taken over could send the hash of a waived model."""
    with pytest.raises(ModelFileError, match="not the file that was scanned"):
        Policy(waivers=(waiver(),)).judged(backdoored(), "1" * 64)


GOOD = {"sha256": f"'{SHA256.upper()}'", "reason": "'r'", "owner": "'o'", "expires": "2026-03-01"}
BAD = [
    ({"sha256": "'abc'"}, "64 hex digits"),
    ({"sha256": "3"}, "64 hex digits"),
    ({"reason": "' '"}, "reason must be text"),
    ({"owner": "['x']"}, "owner must be text"),
    ({"expires": "'soon'"}, "YYYY-MM-DD"),
    ({"expires": "2026-03-01T00:00:00"}, "YYYY-MM-DD"),
    ({"verdict": "'error'"}, "verdict must be one of backdoored, inconclusive"),
    ({"target": "1.5"}, "index or the name"),
    ({"target": "1", "verdict": "'inconclusive'"}, "no target"),
    ({"expiry": "1"}, "did you mean 'expires'"),
    *(({key: None}, f"{key} is missing") for key in GOOD),
]


def written(path: Path, **fields: str | None) -> Path:
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    path.write_text("\n".join(["[[waiver]]", *lines]))
    return path


def test_a_waivers_file_is_read(tmp_path: Path) -> None:
    (one,) = read_waivers(written(tmp_path / "w.toml", **GOOD, target="3"))
    assert one == Waiver(SHA256, "r", "o", date(2026, 3, 1), target=3)
    assert read_waivers(written(tmp_path / "w.toml", **{**GOOD, "expires": "'2026-03-01'"}))
    (tmp_path / "w.toml").write_text("")
    assert read_waivers(tmp_path / "w.toml") == ()


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_bad_waivers_are_refused(
    tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    file = written(tmp_path / "w.toml", **{**GOOD, **changes})
    with pytest.raises(UsageError, match=words) as raised:
        read_waivers(file)
    assert "entry 1" in str(raised.value)


@pytest.mark.parametrize("text", ["[waiver]\nx = 1", "other = 1", "waiver = [1]", "="])
def test_what_is_no_waivers_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises(UsageError, match=r"w\.toml"):
        read_waivers(tmp_path / "w.toml")


def scan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """A scan whose worker finds a backdoor, without the work."""
    model = replace(backdoored().model, path=str(MODEL), sha256=sha256_of(MODEL))
    monkeypatch.setattr("modelaudit.run.run_scan", lambda *_: replace(backdoored(), model=model))
    paths = ["scan", str(MODEL), "--clean-dir", str(BUNDLED / "images")]
    code = __main__.run([*paths, *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def test_the_command_applies_a_waiver_and_the_report_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = written(tmp_path / "w.toml", **{**GOOD, "sha256": f"'{sha256_of(MODEL)}'"})
    output = tmp_path / "r.json"
    code, out, _ = scan(capsys, monkeypatch, "--waivers", file, "--output", output)
    assert code == 0
    assert "BACKDOORED" in out
    assert "Waived by o until 2026-03-01: r" in out
    report = json.loads(output.read_text())
    assert report["verdict"] == "backdoored"
    assert report["policy"]["fail_on"] == list(FAILING)
    assert report["policy"]["waivers"][0]["status"] == "applied"
    written(file, **{**GOOD, "sha256": f"'{sha256_of(MODEL)}'", "expires": "2020-01-01"})
    code, out, err = scan(capsys, monkeypatch, "--waivers", file)
    assert code == 1
    assert "error: the waiver of" in err
    assert "expired on 2020-01-01" in err
    assert "expired on 2020-01-01" in out


def test_the_command_follows_the_policy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert scan(capsys, monkeypatch)[0] == 1
    assert scan(capsys, monkeypatch, "--exit-zero")[0] == 0
    assert scan(capsys, monkeypatch, "--fail-on", "inconclusive,error")[0] == 0
    assert scan(capsys, monkeypatch, "--fail-on", "nothing")[0] == 2
    assert scan(capsys, monkeypatch, "--exit-zero", "--alpha", "7")[0] == 2
    assert scan(capsys, monkeypatch, "--exit-zero", "--waivers", tmp_path / "none.toml")[0] == 2


def test_a_model_that_cannot_be_scanned_follows_it_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(*_: object) -> None:
        raise WorkerCrashError("it crashed")

    monkeypatch.setattr("modelaudit.run.run_scan", crash)
    missing, output = tmp_path / "missing.onnx", tmp_path / "r.json"
    command = ["scan", str(missing), "--clean-dir", str(BUNDLED / "images")]
    assert __main__.run(command) == 2
    assert __main__.run([*command, "--fail-on", "backdoored", "--output", str(output)]) == 0
    assert "error: " in capsys.readouterr().err
    report = json.loads(output.read_text())
    assert report["verdict"] == "error"
    assert report["policy"] == {"fail_on": ["backdoored"], "exit_code": 0, "waivers": []}


def test_settings_from_the_environment_are_in_the_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELAUDIT_SCAN_ALPHA", "0.01")
    monkeypatch.setenv("MODELAUDIT_FORMAT", "json")
    code, out, _ = scan(capsys, monkeypatch, "--format", "json")
    assert code == 1
    assert json.loads(out)["settings"]["from"] == {"alpha": "MODELAUDIT_SCAN_ALPHA"}
