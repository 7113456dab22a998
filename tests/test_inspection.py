"""What an inspection needs, and so how long it takes to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import BUNDLED

# Each takes from a tenth of a second to more than one to import.
HEAVY = {"PIL", "onnxruntime", "scipy", "sympy", "torch._dynamo", "torchvision"}


@pytest.mark.parametrize(
    ("model", "heavy"), [("badnets.onnx", HEAVY), ("global.pt", HEAVY | {"onnx"})]
)
def test_libraries_that_are_not_needed_are_not_imported(model: str, heavy: set[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from modelaudit.inspection import inspect_model; "
        f"inspect_model(Path({str(BUNDLED / model)!r})); "
        f"imported = {heavy!r} & set(sys.modules); "
        "sys.exit(f'imported {imported}' if imported else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
