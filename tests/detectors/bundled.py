"""The models that come with the package, as a detector sees them."""

from __future__ import annotations

from pathlib import Path

import torch

from detectors.types import DetectorInput
from modelaudit.options import ScanOptions
from modelaudit.suspect import prepare

BUNDLED = Path(__file__).parents[2] / "fixtures/bundled"


def bundled_input(file: str, images_per_class: int) -> DetectorInput:
    """A bundled model with its clean images."""
    options = ScanOptions(
        model=BUNDLED / file,
        clean_dir=BUNDLED / "images",
        labels=BUNDLED / "labels.txt",
        images_per_class=images_per_class,
    )
    suspect = prepare(options, lambda stage, share: None)
    return DetectorInput(
        suspect.classifier,
        suspect.chosen.pixels,
        suspect.chosen.labels,
        torch.Generator().manual_seed(0),
    )
