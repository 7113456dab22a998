"""Scans in processes on this machine: which GPU each of them has."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from modelaudit.fleet import local
from modelaudit.fleet.local import LocalExecutor, gpus
from modelaudit.fleet.runner import Job
from modelaudit.isolation.limits import Limits
from modelaudit.isolation.supervisor import run_task
from modelaudit.options import ScanOptions
from modelaudit.report import Report
from tests.formats.reports import clean


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of devices with two GPUs."""
    for name in ("nvidia0", "nvidia1", "nvidia-uvm", "nvidiactl", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(local, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_gpus_are_those_of_the_machine_or_of_the_user(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpus() == ["0", "1"]
    for named, found in {
        "3, GPU-8f": ["3", "GPU-8f"],
        "5": [None],
        "": [None],
        "0,-1": [None],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert gpus() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (devices / "nvidia1").unlink()
    assert gpus() == [None]


@pytest.mark.usefixtures("devices")
def test_scans_at_the_same_time_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str | None] = []
    together = threading.Barrier(4, timeout=20)

    def scan(options: ScanOptions, limits: Limits, **others: Any) -> Report:
        used.append(others["gpu"])
        together.wait()
        return clean()

    monkeypatch.setattr(local, "scan_in_worker", scan)
    options = ScanOptions(Path("model"), Path("images"))
    jobs = [Job(str(n), str(n), replace(options, seed=n)) for n in range(8)]
    assert len(list(LocalExecutor(4, Limits()).run(jobs))) == 8
    assert sorted(used[:4]) == sorted(used[4:]) == ["0", "0", "1", "1"]


def test_a_worker_sees_the_gpu_that_it_is_given(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, weights)
    payload = {"model": str(weights), "arch": "tests.fleet.test_local:tell", "num_classes": None}
    for gpu in ("7", "GPU-8f"):
        with pytest.raises(Exception, match=f"sees {gpu}"):
            run_task("inspect", payload, None, gpu=gpu)


def tell() -> None:
    """A factory of a model that fails, to say what it sees."""
    import os

    raise RuntimeError(f"sees {os.environ['CUDA_VISIBLE_DEVICES']}")
