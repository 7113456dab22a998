"""Everything but a GPU's own arithmetic, on an accelerator that the CPU emulates.

It refuses to mix its tensors with those on the CPU, as a GPU does, and computes the same numbers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent
COMPILER = shutil.which("c++") or ""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="built as on Linux"),
    pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that torch loads."""
    library = tmp_path_factory.mktemp("accelerator") / "accelerator.so"
    include = TORCH / "include"
    places = [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", f"-L{TORCH / 'lib'}"]
    flags = ["-std=c++20", "-O0", "-w", "-shared", "-fPIC", *places]
    libraries = ["-ltorch_cpu", "-lc10"]
    command = [COMPILER, *flags, str(HERE / "accelerator.cpp"), "-o", str(library), *libraries]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"{COMPILER} does not build it: {built.stderr.strip()[:300]}")
    return library


def scanned(model: str, library: Path | None) -> dict[str, Any]:
    """The report of a scan on the accelerator, or on the CPU."""
    arguments = [model, str(library or "")]
    command = [sys.executable, "-m", "tests.accelerator.scan", *arguments]
    run = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def test_every_detector_and_examination_runs_and_says_the_same(accelerator: Path) -> None:
    there, here = scanned("badnets.onnx", accelerator), scanned("badnets.onnx", None)
    assert there["verdict"] == here["verdict"] == "backdoored"
    assert there["targets"] == here["targets"]
    assert there["image_passes"] == here["image_passes"]
    for ours, theirs in zip(there["detectors"], here["detectors"], strict=True):
        assert ours["reason"] == theirs["reason"] == "", ours["detector"]
        assert ours["notes"] == theirs["notes"], ours["detector"]
        assert ours["p_calibrated"] == pytest.approx(theirs["p_calibrated"], 1e-2), ours["detector"]
    status = [(one["name"], one["status"]) for one in there["examinations"]]
    assert status == [(one["name"], one["status"]) for one in here["examinations"]]
    assert ("strip", "done") in status
