"""A worker that crashes, hangs, lies or takes too much becomes a typed error; nothing is left."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modelaudit.checkpoint import Checkpoint
from modelaudit.errors import (
    ModelFileError,
    ScanInterrupted,
    UsageError,
    WorkerCrashError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from modelaudit.formats.text import render_text
from modelaudit.isolation import conversation
from modelaudit.isolation.limits import NOT_LIMITED, Limits
from modelaudit.isolation.supervisor import run_task
from modelaudit.options import ScanOptions
from modelaudit.run import run_scan, scan_in_worker
from modelaudit.stages import STARTING
from tests.conftest import BUNDLED
from tests.isolation.hostile import fits

LIMITS = dataclasses.replace(Limits(), memory=3 * 2**30)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    previous = Path.cwd()
    os.chdir(folder)
    try:
        safetensors.torch.save_file(fits().state_dict(), folder / "w.safetensors")
    finally:
        os.chdir(previous)
    return folder / "w.safetensors"


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers get their folders; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def inspect(weights: Path, factory: str, limits: Limits | None = LIMITS) -> str:
    """The format of the weights, loaded by a factory in a worker."""
    payload = {
        "model": str(weights),
        "arch": f"tests.isolation.hostile:{factory}",
        "num_classes": None,
    }
    return str(run_task("inspect", payload, limits)["format"])


@pytest.mark.parametrize("limits", [LIMITS, None])
def test_a_harmless_model_may_print_and_write_into_its_own_folder(
    weights: Path, limits: Limits | None, own_temporary_folder: Path
) -> None:
    assert "safetensors" in inspect(weights, "fits", limits)
    assert list(own_temporary_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        ("crash", WorkerCrashError, "SIGSEGV"),
        ("leave", WorkerCrashError, "exit code 1"),
        ("leave_politely", WorkerCrashError, "exit code 1"),
        ("fail", UsageError, "no such layer"),
        ("leave_a_child", WorkerCrashError, "exit code 3"),
        ("hang_up", WorkerCrashError, "closed its channel"),
        ("send_too_many_values", WorkerCrashError, "something odd"),
        ("take_memory", WorkerMemoryError, "more memory than is allowed"),
        ("fill_the_gpu", WorkerMemoryError, "than the GPU has left .*CUDA error: out of memory"),
    ],
)
def test_failures_are_typed(
    weights: Path, factory: str, error: type[Exception], words: str, own_temporary_folder: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        inspect(weights, factory)
    assert caught.value.stage == "loading the model"  # type: ignore[attr-defined]
    assert list(own_temporary_folder.iterdir()) == []


def test_text_of_the_model_does_not_steer_the_terminal(weights: Path) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(weights, "steer_the_terminal")
    assert str(caught.value).endswith(": \\x1b[2Jno-backdoor-found\nsecond line \\ud800")
    assert caught.value.stage == "\\x1b[2Jstage\\ud800"
    with pytest.raises(WorkerCrashError, match=r"exit code 5; \\x1b\[2Jno"):
        inspect(weights, "steer_the_terminal_and_crash")


def test_odd_progress_is_ignored(weights: Path) -> None:
    assert inspect(weights, "send_odd_progress") == "safetensors"


def test_folders_in_folders_are_removed(weights: Path, own_temporary_folder: Path) -> None:
    assert inspect(weights, "dig") == "safetensors"
    assert list(own_temporary_folder.iterdir()) == []


def test_a_lie_is_not_a_report(weights: Path) -> None:
    options = ScanOptions(weights, BUNDLED / "images", arch="tests.isolation.hostile:lie")
    with pytest.raises(WorkerCrashError, match="odd report"):
        scan_in_worker(options, LIMITS)


def test_a_hang_is_ended(weights: Path) -> None:
    with pytest.raises(WorkerTimeoutError, match="No progress for 12 s"):
        inspect(weights, "hang", dataclasses.replace(LIMITS, stall=12))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is the system's")
def test_processor_time_is_limited(weights: Path) -> None:
    with pytest.raises(WorkerTimeoutError, match="processor time"):
        inspect(weights, "spin", dataclasses.replace(LIMITS, cpu_time=8))


def test_an_error_of_the_tree_comes_back_as_itself(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no model file"):
        inspect(tmp_path / "missing.onnx", "fits")


@pytest.mark.parametrize("factory", ["hang", "never_stop_talking"])
def test_cancelling_ends_the_worker(
    weights: Path, own_temporary_folder: Path, factory: str
) -> None:
    cancelled = threading.Event()
    arch = f"tests.isolation.hostile:{factory}"
    payload = {"model": str(weights), "arch": arch, "num_classes": None}

    def cancel_soon(stage: str, share: float) -> None:
        if share or factory == "hang":
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        run_task("inspect", payload, LIMITS, cancel_soon, cancelled=cancelled)
    assert list(own_temporary_folder.iterdir()) == []


def test_an_odd_finished_detector_is_not_kept(weights: Path, tmp_path: Path) -> None:
    arch = "tests.isolation.hostile:send_an_odd_finished_detector"
    checkpoint = Checkpoint(tmp_path / "kept", note=lambda text: None)
    with pytest.raises(WorkerCrashError, match="odd report"):
        scan_in_worker(
            ScanOptions(weights, BUNDLED / "images", arch=arch), LIMITS, checkpoint=checkpoint
        )
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("factory", ["hang", "spin", "never_stop_talking"])
def test_a_worker_that_does_not_end_when_asked_is_ended(
    weights: Path,
    own_temporary_folder: Path,
    factory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversation, "_LONGEST_FAREWELL", 0.5)
    stop = threading.Event()
    options = ScanOptions(weights, BUNDLED / "images", arch=f"tests.isolation.hostile:{factory}")
    with pytest.raises(ScanInterrupted) as caught:
        run_scan(options, LIMITS, lambda stage, share: stop.set(), stop=stop)
    assert caught.value.stage == "loading the model"
    assert list(own_temporary_folder.iterdir()) == []


def test_a_worker_that_has_not_begun_is_ended_at_once(weights: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ScanInterrupted) as caught:
        run_scan(ScanOptions(weights, BUNDLED / "images"), LIMITS, stop=stop)
    assert caught.value.stage == STARTING


def test_a_worker_that_ends_when_asked_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one detector after the other
    stop = threading.Event()
    options = ScanOptions(
        BUNDLED / "clean.onnx", BUNDLED / "images", images_per_class=1, detectors=("mm-bd", "l-red")
    )

    def stop_in_the_second(stage: str, share: float) -> None:
        if stage == "l-red":
            stop.set()

    report = run_scan(options, LIMITS, stop_in_the_second, stop=stop)
    assert report.interrupted
    assert report.verdict == "inconclusive"
    assert [one.p_holm is not None for one in report.detectors] == [True, False]


def test_a_terminated_command_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    """SIGTERM to the command ends its worker and removes the worker's folder."""
    folder = tmp_path / "t"
    folder.mkdir()
    command = [sys.executable, "-m", "modelaudit", "inspect", str(weights)]
    command += ["--arch", "tests.isolation.hostile:hang"]
    process = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(folder)}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(folder.iterdir()) == []


def test_torch_is_imported_in_the_worker_only() -> None:
    code = (
        "import sys; from modelaudit import cli; from modelaudit.run import run_scan; "
        "from modelaudit.formats import FORMATS; from modelaudit.progress import stage_progress; "
        "print({'torch', 'onnx', 'numpy'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "set()"


def test_the_worker_gives_the_same_numbers() -> None:
    options = ScanOptions(
        BUNDLED / "badnets.onnx", BUNDLED / "images", images_per_class=1, detectors=("l-red",)
    )
    # Sums in another order, as another number of threads makes them, differ in the last digits.
    isolated = scan_in_worker(options, LIMITS, threads=torch.get_num_threads())
    here = run_scan(options, None)
    assert isolated.image_passes == here.image_passes
    for one, other in zip(isolated.detectors, here.detectors, strict=True):
        assert dataclasses.replace(one, seconds=0) == dataclasses.replace(other, seconds=0)
    assert isolated.model == here.model
    assert set(isolated.environment["isolation"]) == {"limits", "network", "files", "memory"}


def test_what_the_system_does_not_offer_is_said() -> None:
    options = ScanOptions(
        BUNDLED / "badnets.onnx", BUNDLED / "images", images_per_class=1, detectors=("l-red",)
    )
    report = run_scan(options, None)
    told = {**report.environment, "isolation": {"network": f"{NOT_LIMITED}: no namespaces"}}
    text = render_text(dataclasses.replace(report, environment=told))
    assert "note: isolation, network: not limited: no namespaces" in text
