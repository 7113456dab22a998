"""Bundled images with a bundled model's own trigger, for examinations and screening."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image
from torch import Tensor

from fixtures.attacks.base import Attack, fix_trigger
from fixtures.bundle import SPECS
from modelaudit.image_files import read_image
from tests.conftest import BUNDLED

IMAGES = BUNDLED / "images"


def trigger(name: str, pixels: Tensor) -> Tensor:
    """Images ``[n, 1, 28, 28]`` in [0, 1] with the trigger of the bundled model ``name``."""
    spec = next(spec for spec in SPECS if spec.name == name)
    assert spec.backdoor is not None
    assert isinstance(spec.backdoor.attack, Attack)
    return fix_trigger(spec.backdoor.attack, spec.seed)(pixels).images


def files_of(label: int) -> list[Path]:
    """The bundled images of a class."""
    return sorted((IMAGES / f"{label:02d}").iterdir())


def copy_stamped(name: str, file: Path, target: Path) -> None:
    """Write an image with the trigger of the bundled model ``name``."""
    pixels = read_image(file, 1, (28, 28))[None].float() / 255
    values = trigger(name, pixels)[0, 0].mul(255).round().byte().numpy()
    Image.fromarray(values).save(target)


def halves(name: str, sources: tuple[int, ...], folder: Path) -> tuple[Path, Path]:
    """Two folders: half of the images as clean ones, and the other half as inputs.

    Below the inputs lie ``clean``, with class folders, and ``stamped``: those of the source classes
    once more, with the trigger.
    """
    clean, inputs = folder / "clean", folder / "inputs"
    (inputs / "stamped").mkdir(parents=True)
    for label in range(10):
        for place in (clean / str(label), inputs / "clean" / str(label)):
            place.mkdir(parents=True)
        for file in files_of(label)[:4]:
            shutil.copy(file, clean / str(label))
        for file in files_of(label)[4:]:
            shutil.copy(file, inputs / "clean" / str(label))
            if label in sources:
                copy_stamped(name, file, inputs / "stamped" / f"{label}-{file.name}")
    return clean, inputs
