"""Scan a bundled model on the emulated accelerator or on the CPU, and print the report as JSON.

Run as a process of its own: what torch is told here holds for the whole process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import torch

from modelaudit import suspect
from modelaudit.options import ScanOptions
from modelaudit.scanning import scan
from tests.conftest import BUNDLED

NAME = "emulated"
#: Everything runs, for a few steps.
SETTINGS = {
    "l-red": {"tau_max": "40"},
    **{
        f"l-red-{kind}": {"tau_max": "40"}
        for kind in ("sparse", "warp", "neurons", "generator", "patch")
    },
    **{f"l-red-all-to-all{kind}": {"tau_max": "6"} for kind in ("", "-sparse", "-neurons")},
    "mm-bd": {"steps": "10"},
    "neural-cleanse": {"steps": "6"},
}


def register(library: Path) -> torch.device:
    """Load the accelerator and give it the name that torch's Python code asks for."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module = ModuleType(NAME)
    module.is_available = lambda: True  # type: ignore[attr-defined]
    module.device_count = lambda: 1  # type: ignore[attr-defined]
    module.current_device = lambda: 0  # type: ignore[attr-defined]
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return torch.device(NAME)


def main(model: str, library: str) -> None:
    device = register(Path(library)) if library else torch.device("cpu")
    suspect.device_of = lambda name: (device, "")
    options = ScanOptions(
        BUNDLED / model,
        BUNDLED / "images",
        images_per_class=2,
        preset="thorough",
        settings=SETTINGS,
        examine=("all",),
        suspect_dir=BUNDLED / "images" / "03",
        train_dir=BUNDLED / "images",
    )
    print(json.dumps(scan(options).report.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
