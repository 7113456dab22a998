"""A scan that is ended by a signal, and the next one that goes on with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelaudit.checkpoint import Checkpoint
from modelaudit.cli.long import Length, first_interrupt
from modelaudit.report import schema
from modelaudit.run import run_scan
from modelaudit.scanning import ScanOptions
from tests.command import modelaudit
from tests.conftest import BUNDLED
from tests.test_checkpoint import FINISHED

MODEL, IMAGES = BUNDLED / "badnets.onnx", BUNDLED / "images"
#: The second one takes a second or so, so that a signal after the first one hits it.
OPTIONS = ScanOptions(
    MODEL,
    IMAGES,
    images_per_class=1,
    detectors=("mm-bd", "l-red"),
    settings={"mm-bd": {"steps": "3"}},
)
SCAN = ["scan", MODEL, "--clean-dir", IMAGES, "--images-per-class", "1", "--set", "mm-bd.steps=3"]
SCAN += ["--detector", "mm-bd", "--detector", "l-red"]


def files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.json"))


def interrupted(arguments: list[object], cache: Path) -> subprocess.CompletedProcess[str]:
    """The command, ended by SIGTERM as soon as its first detector has finished."""
    command = [sys.executable, "-m", "modelaudit", *map(str, arguments), "--cache-dir", str(cache)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not files(cache) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def same(report: dict[str, Any]) -> dict[str, Any]:
    """A JSON report without times and without what only the command knows."""
    other = ("seconds", "environment", "policy")
    kept = {key: value for key, value in report.items() if key not in other}
    for part in (*kept["detectors"], *kept["examinations"]):
        del part["seconds"]
    return kept


def test_a_killed_scan_goes_on_and_gives_the_same_numbers(tmp_path: Path) -> None:
    cache, output = tmp_path / "cache", tmp_path / "report.json"
    first = interrupted([*SCAN, "--output", output], cache)
    assert first.returncode == 130
    assert "the same command goes on" in first.stderr
    assert "l-red" in first.stdout
    report = json.loads(output.read_text())
    jsonschema.Draft202012Validator(schema()).validate(report)
    assert report["cut_short"]["cause"] == "interrupted"
    assert report["cut_short"]["kept"]
    assert [one["detector"] for one in report["cut_short"]["left_out"]] == ["l-red"]
    (kept,) = files(cache)
    assert json.loads(kept.read_text().splitlines()[1])["report"]["detector"] == "mm-bd"

    second = modelaudit(*SCAN, "--output", output, "--cache-dir", cache)
    assert second.returncode == 1
    assert "mm-bd: taken over" in second.stderr
    assert files(cache) == []
    resumed = json.loads(output.read_text())

    whole = run_scan(OPTIONS, None).to_dict()
    assert same(resumed) == same(whole)


def test_a_checkpoint_of_another_scan_is_not_used(tmp_path: Path) -> None:
    """Of another seed, other images, another model or other settings."""
    notes: list[str] = []

    def scan(options: ScanOptions, to_its_end: bool = True) -> list[str]:
        """What is taken over."""
        notes.clear()
        stop = threading.Event()

        def progress(stage: str, share: float) -> None:
            if stage == "l-red" and not to_its_end:
                stop.set()

        checkpoint = Checkpoint.of_model(tmp_path, options.model, notes.append)
        run_scan(options, None, progress, checkpoint, stop)
        return list(notes)

    assert scan(OPTIONS, to_its_end=False) == []
    (kept,) = files(tmp_path)
    for other in (
        replace(OPTIONS, seed=1),
        replace(OPTIONS, images_per_class=2),
        replace(OPTIONS, model=BUNDLED / "clean.onnx"),
        replace(OPTIONS, settings={"mm-bd": {"steps": "4"}}),
    ):
        assert scan(replace(other, detectors=("mm-bd",))) == []
        assert files(tmp_path) == [kept]
    assert scan(OPTIONS) == ["mm-bd: taken over from a scan that was not finished"]
    assert files(tmp_path) == []


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELAUDIT_CACHE", str(tmp_path / "usual"))
    for length, folder in ((Length(), "usual"), (Length(cache_dir=tmp_path / "own"), "own")):
        checkpoint = length.checkpoint(MODEL, quiet=True)
        assert checkpoint is not None
        checkpoint.add(FINISHED)
        assert len(files(tmp_path / folder)) == 1
    assert Length(cache=False).checkpoint(MODEL, quiet=True) is None
    assert "--no-cache" in Length(cache=False).after_interruption


def test_the_first_signal_is_a_wish_and_the_second_one_an_order() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # some parents have it ignored
    try:
        with first_interrupt() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with first_interrupt() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_handles_no_signals() -> None:
    seen: list[bool] = []

    def run() -> None:
        with first_interrupt() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
