"""The command line: options, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelaudit import __main__, __version__
from modelaudit.checks import CHECKS
from modelaudit.cli import main as cli
from modelaudit.cli import report as cli_report
from modelaudit.cli.options import parse_settings
from modelaudit.errors import UsageError
from tests.command import modelaudit
from tests.conftest import BUNDLED
from tests.formats.reports import backdoored

MODEL = sorted(BUNDLED.glob("*.onnx"))[0]
IMAGES = BUNDLED / "images"
MANIFEST = BUNDLED / "manifest.json"
#: Two steps find no pattern (inconclusive), but everything around the search runs.
SHORT = ["--detector", "l-red", "--set", "l-red.tau_max=2"]


def scan(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a scan in this process; exit code and stderr."""
    code = __main__.run(["scan", *map(str, arguments)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [(), ("scan",), ("screen",), ("sweep",), ("evaluate",), ("inspect",), ("detectors",)],
)
def test_help_answers_without_torch(command: tuple[str, ...]) -> None:
    code = (
        "import sys; from modelaudit import __main__; "
        f"code = __main__.run([*{command!r}, '--help']); "
        "heavy = {'torch', 'onnx', 'scipy', 'numpy', 'onnxruntime', 'jinja2', 'PIL'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


def test_version() -> None:
    done = modelaudit("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"modelaudit {__version__}")


def test_detectors_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.run(["detectors"]) == 0
    text = capsys.readouterr().out
    for word in (
        "l-red ",
        "l-red-sparse",
        "l-red.schedule=fast",
        "fast | paper",
        "--examine strip",
    ):
        assert word in text


def test_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.run(["checks"]) == 0
    text = capsys.readouterr().out
    for description in CHECKS:
        assert f"{description.name}\n  raised if" in text


def test_inspect_says_what_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.run(["inspect", str(MODEL)]) == 0
    text = capsys.readouterr().out
    for word in ("onnx", "1x28x28", "classes", "opset", "sha256", "Sub 0.5, Div 0.5"):
        assert word in text


BAD_OPTIONS = [
    (["--set", "l-red.nope=1"], "no setting 'nope'"),
    (["--set", "l-red"], "DETECTOR.KEY=VALUE"),
    (["--set", "strip.x=1"], "does not run in this scan"),
    (["--detector", "nope"], "there is no detector 'nope'"),
    (["--examine", "nope"], "expected all or one of"),
    (["--train-dir", "/no/such/folder"], "not exist"),
    (["--suspect-dir", "/no/such/folder"], "not exist"),
    (["--alpha", "2"], "alpha"),
    (["--alpha", "nan"], "alpha"),
    (["--device", "tpu"], "auto, cpu or cuda"),
    (["--format", "pdf"], "expected one of text, json"),
    (["--output", "report.docx"], "known: .txt, .json"),
    (["--output", "/no/such/folder/r.json"], "no folder"),
    (["--image-size", "big"], "HxW"),
    (["--image-size", "32"], "contradicts the model file"),
    (["--mean", "1,2"], "mean"),
    (["--input-range", "0-1023"], "0-255"),
    (["--layout", "CHWN"], "NHWC"),
    (["--preprocess", "nope"], "nope"),
    (["--images-per-class", "0"], "--images-per-class"),
    (["--time-budget", "soon"], "expected a time such as 90s"),
    (["--labels", "/no/such/labels.txt"], "labels"),
]


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS)
def test_bad_options_exit_2_and_say_what_fits(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    code, error = scan(capsys, MODEL, "--clean-dir", IMAGES, *options)
    assert code == 2
    assert words in error.replace("\n", " ")
    assert "Traceback" not in error


def test_missing_arguments_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = scan(capsys, MODEL)
    assert code == 2
    assert "--clean-dir" in error


def test_bad_models_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "cut.onnx").write_bytes(MODEL.read_bytes()[:5000])
    for name in ("missing.onnx", "empty.onnx", "text.onnx", "cut.onnx"):
        code, error = scan(capsys, tmp_path / name, "--clean-dir", IMAGES)
        assert code == 2, name
        assert name in error
        assert "Traceback" not in error
        assert "internal error" not in error


def test_bad_image_folders_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "broken" / "0").mkdir(parents=True)
    (tmp_path / "broken" / "0" / "a.png").write_text("not an image")
    for name in ("missing", "none", "broken"):
        code, error = scan(capsys, MODEL, "--clean-dir", tmp_path / name)
        assert code == 2, name
        assert name in error
        assert "Traceback" not in error


def test_wrong_images_are_inconclusive_and_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Noise instead of clean images: accuracy near chance, exit 3, and the report is written."""
    rng = np.random.default_rng(0)
    for k in range(10):
        folder = tmp_path / "images" / str(k)
        folder.mkdir(parents=True)
        for i in range(4):
            noise = rng.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{i}.png")
    output = tmp_path / "r.json"
    code = __main__.run(
        ["scan", str(MODEL), "--clean-dir", str(tmp_path / "images"), "--output", str(output)]
    )
    text = capsys.readouterr().out
    assert code == 3
    assert "INCONCLUSIVE" in text
    assert "--preprocess" in text
    assert '"inconclusive"' in output.read_text()


def test_output_that_cannot_be_written_is_noticed_before_the_scan(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "folder.json").mkdir()
    for command in (["scan", str(MODEL), "--clean-dir", str(IMAGES)], ["evaluate", str(MANIFEST)]):
        for bad in (tmp_path / "folder.json", tmp_path / "no" / "r.json"):
            assert __main__.run([*command, "--output", str(bad)]) == 2
            assert "folder" in capsys.readouterr().err


def test_one_bad_output_does_not_lose_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_report, "check_writable", lambda path: None)
    good = tmp_path / "good.json"
    arguments = ["scan", str(MODEL), "--clean-dir", str(IMAGES), *SHORT]
    arguments += ["--output", str(tmp_path / "no" / "bad.json"), "--output", str(good)]
    assert __main__.run(arguments) == 2
    captured = capsys.readouterr()
    assert good.exists()
    assert "INCONCLUSIVE" in captured.out
    assert "bad.json" in captured.err


def test_names_are_text_not_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels, model = tmp_path / "labels.txt", tmp_path / "model[v2].onnx"
    labels.write_text("".join(f"class[/b] {k} :smile:\n" for k in range(10)))
    model.write_bytes(MODEL.read_bytes())
    arguments = ["scan", str(model), "--clean-dir", str(IMAGES), "--labels", str(labels), *SHORT]
    assert __main__.run(arguments) == 3
    assert "model[v2].onnx" in capsys.readouterr().out.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_narrow_terminals_get_plain_characters(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelaudit", "scan", MODEL, "--clean-dir", IMAGES, *SHORT],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    assert b"+---" in done.stdout


def test_accuracy_floor_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = scan(capsys, MODEL, "--clean-dir", IMAGES, *SHORT, "--accuracy-floor", "0.99")
    assert code == 3
    code, error = scan(capsys, MODEL, "--clean-dir", IMAGES, "--accuracy-floor", "2")
    assert code == 2
    assert "--accuracy-floor" in error


def test_uncaught_exception_never_exits_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError("boom"), SystemExit(1), MemoryError(), OSError("full")):

        def fail(*_: object, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(cli, "invoke", fail)
        assert __main__.run(["detectors"]) == 2
    monkeypatch.setattr(cli, "invoke", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert __main__.run(["detectors"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_settings_are_parsed() -> None:
    parsed = parse_settings(["a.b=1", "a.c=x=y", "d.e= 2 "])
    assert parsed == {"a": {"b": "1", "c": "x=y"}, "d": {"e": "2"}}
    with pytest.raises(UsageError):
        parse_settings(["a=1"])


@pytest.mark.parametrize(
    "wrong", [("--alpha", "7"), ("--limit", "disk=1"), ("--mean", "x"), ("--detector", "none")]
)
def test_every_failure_of_a_scan_replaces_an_older_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, wrong: tuple[str, str]
) -> None:
    output = tmp_path / "report.json"
    output.write_text('{"verdict": "no-backdoor-found"}')
    code, _ = scan(capsys, MODEL, "--clean-dir", IMAGES, "--output", output, *wrong)
    assert code == 2
    assert json.loads(output.read_text())["verdict"] == "error"


def test_a_report_that_no_format_can_show_leaves_no_older_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that takes over the worker could send such numbers."""
    report = backdoored()
    detectors = tuple(replace(one, null={"shape": -1.0, "scale": 1.0}) for one in report.detectors)
    monkeypatch.setattr("modelaudit.run.run_scan", lambda *_: replace(report, detectors=detectors))
    older, page = tmp_path / "report.json", tmp_path / "report.html"
    older.write_text('{"verdict": "no-backdoor-found"}')
    outputs = ("--output", str(older), "--output", str(page))
    assert __main__.run(["scan", str(MODEL), "--clean-dir", str(IMAGES), *outputs]) == 2
    assert json.loads(older.read_text())["verdict"] == "error"
    assert "internal error" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error_to_speak_of() -> None:
    """As in ``modelaudit config | head -1``; what is printed is longer than a pipe holds."""
    command = (
        "import sys; from modelaudit import __main__; from modelaudit.cli import main; "
        "main.app.command('long')(lambda: print('x' * 2**20)); sys.exit(__main__.run(['long']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under ``nohup``."""
    command = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from modelaudit import __main__; __main__.run = lambda: 0\n"
        "try: __main__.main()\n"
        "except SystemExit: print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,"
        " signal.getsignal(signal.SIGTERM) == __main__._interrupt)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "True True\n"
