"""Settings from files and the environment: precedence, errors, and what a found file must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer.main

from modelaudit import __main__
from modelaudit.cli import main as cli
from modelaudit.cli.flags import RESERVED, flags_of, variables
from modelaudit.config import ONLY_NAMED
from modelaudit.errors import ImagesError, UsageError
from modelaudit.model_config import read_model_config
from tests.conftest import BUNDLED

MODEL = BUNDLED / "badnets.onnx"
FLAGS = flags_of(typer.main.get_command(cli.app))
#: Keys that a file may set that was only found: they change what a scan does, and the report says
#: so, but they cannot make it run code, write files or pass. A new flag belongs here or in
#: ``ONLY_NAMED``; decide as if the author of a hostile model had written the file.
HARMLESS = frozenset(
    {
        *("clean-dir", "labels", "arch", "num-classes", "image-size"),
        *("preprocess", "mean", "std", "input-range", "layout", "channel-order"),
        *("images-per-class", "detector", "fast", "thorough", "set", "alpha", "accuracy-floor"),
        *("device", "seed", "examine", "suspect-dir", "train-dir", "inputs"),
        *("false-rejection-rate", "superpositions", "time-budget", "cache"),
        *("format", "report-format", "quiet", "jobs", "ray-cpus", "ray-gpus"),
    }
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MODELAUDIT_") and name not in RESERVED:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def scanned(*_: object) -> None:
        raise ImagesError("there are no images")

    monkeypatch.setattr("modelaudit.run.run_scan", scanned)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr as one line."""
    code = __main__.run([*map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def shown(capsys: pytest.CaptureFixture[str], *root: object) -> dict[str, Any]:
    """Command -> key -> value and source."""
    code, out, err = run(capsys, *root, "config", "--format", "json")
    assert code == 0, err
    settings: dict[str, Any] = json.loads(out)["settings"]
    return settings


def test_a_flag_goes_before_the_environment_before_files_before_the_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["default"]
    assert shown(capsys)["scan"]["alpha"] == {"value": 0.05, "source": "default"}
    pyproject, own = tmp_path / "pyproject.toml", tmp_path / "modelaudit.toml"
    pyproject.write_text("[tool.modelaudit]\nalpha = 0.01\nseed = 7")
    places.append(str(pyproject))
    assert shown(capsys)["scan"]["alpha"] == {"value": 0.01, "source": str(pyproject)}
    own.write_text("alpha = 0.02")
    assert shown(capsys)["scan"]["alpha"] == {"value": 0.02, "source": str(own)}
    assert shown(capsys)["scan"]["seed"] == {"value": 7, "source": str(pyproject)}
    monkeypatch.setenv("MODELAUDIT_ALPHA", "0.03")
    assert shown(capsys)["scan"]["alpha"] == {"value": 0.03, "source": "MODELAUDIT_ALPHA"}
    monkeypatch.setenv("MODELAUDIT_SCAN_ALPHA", "0.04")
    assert shown(capsys)["scan"]["alpha"] == {"value": 0.04, "source": "MODELAUDIT_SCAN_ALPHA"}
    assert shown(capsys)["screen"]["alpha"] == {"value": 0.03, "source": "MODELAUDIT_ALPHA"}
    monkeypatch.setenv("MODELAUDIT_SCAN_ALPHA", "5")
    assert "not 5.0" in run(capsys, "scan", MODEL, "--clean-dir", "x")[2]
    assert "not 6.0" in run(capsys, "scan", MODEL, "--clean-dir", "x", "--alpha", "6")[2]


def test_every_flag_can_be_set_in_a_file_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    samples: dict[type, tuple[str, Any]] = {
        bool: ("true", True),
        int: ("3", 3),
        float: ("0.5", 0.5),
        str: ('"text"', "text"),
        Path: ('"a/b"', str(Path("a/b"))),
    }
    lines, expected = [], {}
    for command, flags in FLAGS.items():
        lines.append(f"[{command}]")
        for number, (key, flag) in enumerate(flags.items()):
            written, value = samples[flag.kind]
            written, value = (f"[{written}]", [value]) if flag.repeatable else (written, value)
            lines.append(f"{key if number % 2 else key.replace('-', '_')} = {written}")
            expected[command, key] = value
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines))
    settings = shown(capsys, "--config", "all.toml")
    for (command, key), value in expected.items():
        if command == "config":
            continue  # its own --format is given here
        assert settings[command][key] == {"value": value, "source": "all.toml"}, (command, key)


def test_a_commands_table_goes_before_the_rest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.modelaudit]\nimages_per_class = 4\n[tool.modelaudit.scan]\nimages-per-class = 6\n"
    )
    settings = shown(capsys)
    assert settings["scan"]["images-per-class"]["value"] == 6
    assert settings["evaluate"]["images-per-class"]["value"] == 4


def test_the_nearest_folder_with_settings_counts_and_paths_are_relative_to_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelaudit.toml").write_text('clean-dir = "images"\nlabels = ["a", "b"]')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\nx = 1")
    (inner / "modelaudit.toml").write_text("num_classes = 2  # about a model")
    monkeypatch.chdir(inner)
    assert shown(capsys)["scan"]["clean-dir"]["value"] == str(tmp_path / "images")
    assert shown(capsys, "--no-config")["scan"]["clean-dir"]["source"] == "not set"
    (inner / "pyproject.toml").write_text("[tool.modelaudit]\nseed = 1")
    assert shown(capsys)["scan"]["clean-dir"]["value"] is None


def test_what_a_found_file_sets_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "modelaudit.toml").write_text("alpha = 1e-9\nquiet = true\n[screen]\nseed = 1")
    code, _, err = run(capsys, "scan", MODEL, "--clean-dir", "missing")
    assert code == 2
    assert f"settings from {tmp_path / 'modelaudit.toml'}: alpha, quiet" in err
    assert "settings" not in run(capsys, "--no-config", "scan", MODEL, "--clean-dir", "missing")[2]


BAD = [
    ("alhpa = 1", "no setting 'alhpa'; did you mean 'alpha'?"),
    ("[scan]\nimages_pr_class = 1", "'scan.images_pr_class'; did you mean 'scan.images-per-class'"),
    ("[scan]\njobs = 1", "no setting 'scan.jobs'"),
    ("qwertyuiop = 1", "see `modelaudit config`"),
    ("alpha = '0.1'", "alpha must be a number; found '0.1'"),
    ("seed = 1.5", "seed must be a whole number"),
    ("seed = true", "seed must be a whole number"),
    ("fast = 1", "fast must be true or false"),
    ("detector = 'l-red'", "detector must be a list"),
    ("device = 3", "device must be text"),
    ("scan = 1", "scan must be a table"),
    ("accuracy_floor = 0.1\naccuracy-floor = 0.2", "given twice"),
    ("mean = [0.5]", "did you mean 'preprocessing.mean'"),
    ("labels = 'labels.txt'", "labels must be a list"),
    ("alpha =", "not valid TOML"),
    ("x" * 2**19, "larger than"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad_files_exit_2_and_name_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "modelaudit.toml"
    file.write_text(text)
    code, out, err = run(capsys, "scan", MODEL, "--clean-dir", "x")
    assert (code, out) == (2, "")
    assert str(file) in err
    assert words in err
    assert run(capsys, "scan", "--help")[0] == 0


def test_a_value_out_of_range_is_traced_to_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelaudit.toml").write_text("images_per_class = 0")
    err = run(capsys, "scan", MODEL, "--clean-dir", "x")[2]
    assert f"--images-per-class comes from {tmp_path / 'modelaudit.toml'}" in err
    monkeypatch.setenv("MODELAUDIT_SEED", "-1")
    err = run(capsys, "--no-config", "scan", MODEL, "--clean-dir", "x")[2]
    assert "--seed comes from MODELAUDIT_SEED" in err


def test_config_and_no_config_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert "exclude" in run(capsys, "--config", "x.toml", "--no-config", "detectors")[2]
    code, _, err = run(capsys, "--config", "x.toml", "detectors")
    assert code == 2
    assert "x.toml cannot be read" in err


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_is_judged_for_files_that_are_only_found(command: str) -> None:
    assert set(FLAGS[command]) <= HARMLESS | ONLY_NAMED
    assert not HARMLESS & ONLY_NAMED


@pytest.mark.parametrize(
    ("command", "key"), [(c, k) for c, flags in FLAGS.items() for k in flags if k in ONLY_NAMED]
)
def test_a_found_file_cannot_weaken_the_scan_or_let_it_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, key: str
) -> None:
    flag = FLAGS[command][key]
    value = {bool: "false", Path: '"r.json"'}.get(flag.kind, '"memory=1T"')
    value = f"[{value}]" if flag.repeatable else value
    (tmp_path / "pyproject.toml").write_text(f"[tool.modelaudit.{command}]\n{key} = {value}")
    code, _, err = run(capsys, "config")
    assert code == 2
    assert f"{key} is not taken from a file that was only found" in err
    assert "--config" in err
    assert run(capsys, "--config", "pyproject.toml", "config")[0] == 0


def test_a_found_file_cannot_run_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    file = tmp_path / "modelaudit.toml"
    file.write_text('[scan]\narch = "evil:factory"')
    code, _, err = run(capsys, "scan", MODEL, "--clean-dir", "x")
    assert code == 2
    assert "arch with a module" in err
    file.write_text('[scan]\narch = "resnet18"')
    assert shown(capsys)["scan"]["arch"]["value"] == "resnet18"


def test_a_flag_puts_weaker_exclusive_settings_aside(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelaudit.toml").write_text('detector = ["l-red"]')
    err = run(capsys, "scan", MODEL, "--clean-dir", "missing", "--fast")[2]
    assert "exclude" not in err
    assert "no images" in err
    err = run(capsys, "scan", MODEL, "--clean-dir", "x", "--fast", "--detector", "l-red")[2]
    assert "exclude each other" in err
    (tmp_path / "modelaudit.toml").write_text('preprocess = "imagenet"')
    err = run(capsys, "scan", MODEL, "--clean-dir", "missing", "--std", "0.5")[2]
    assert "no images" in err
    (tmp_path / "modelaudit.toml").write_text('preprocess = "nothing"\n[scan]\nmean = "0.5"')
    err = run(capsys, "scan", MODEL, "--clean-dir", "missing", "--preprocess", "half")[2]
    assert "no images" in err
    monkeypatch.setenv("MODELAUDIT_LIMIT", "memory=8G")
    err = run(capsys, "scan", MODEL, "--clean-dir", "missing", "--no-isolation")[2]
    assert "--limit needs" not in err


def test_variables_hold_several_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELAUDIT_DETECTOR", "l-red mm-bd")
    monkeypatch.setenv("MODELAUDIT_SCAN_OUTPUT", os.pathsep.join(("a.json", "b.html")))
    monkeypatch.setenv("MODELAUDIT_FAST", "0")
    settings = shown(capsys)["scan"]
    assert settings["detector"]["value"] == ["l-red", "mm-bd"]
    assert settings["output"]["value"] == ["a.json", "b.html"]
    assert settings["fast"]["value"] is False


def test_variables_with_another_meaning_set_no_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name for c, flags in FLAGS.items() for key in flags for name in variables(c, key)}
    assert not names & RESERVED
    monkeypatch.setenv("MODELAUDIT_CACHE", "/some/folder")
    monkeypatch.setenv("MODELAUDIT_SCAN_ALHPA", "1")
    code, out, _ = run(capsys, "config")
    assert code == 0
    assert "MODELAUDIT_SCAN_ALHPA sets nothing; did you mean MODELAUDIT_SCAN_ALPHA?" in out
    assert "MODELAUDIT_CACHE sets" not in out


def test_config_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "config")[1]
    for command, flags in FLAGS.items():
        assert not flags or f"[{command}]" in out
        for key in flags:
            assert f"  {key}" in out
    assert run(capsys, "config", "--format", "xml")[0] == 2


def test_settings_beside_a_model_say_nothing_about_it(tmp_path: Path) -> None:
    file = tmp_path / "modelaudit.toml"
    file.write_text('alpha = 0.5\nimages_per_class = 2\nlabels = ["a", "b"]\n[scan]\nfast = true')
    assert read_model_config(tmp_path / "model.onnx").labels == ("a", "b")
    file.write_text("lables = []")
    with pytest.raises(UsageError, match="did you mean 'labels'"):
        read_model_config(tmp_path / "model.onnx")
