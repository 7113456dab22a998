"""Inputs without classes: a folder of images, nested or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modelaudit.errors import ImagesError
from modelaudit.image_files import decode_image
from modelaudit.image_folder import IMAGE_SUFFIXES


@dataclass(frozen=True)
class InputImages:
    """Images that could be read, and the files that could not.

    Attributes:
        pixels: float32 ``[n, C, H, W]`` in [0, 1].
        files: where each came from.
        failures: file -> why it cannot be read.
    """

    pixels: Tensor
    files: tuple[Path, ...]
    failures: dict[Path, str]


def list_inputs(directory: Path) -> tuple[Path, ...]:
    """The image files in a folder and the folders in it, sorted; links to folders are not followed.

    Raises:
        ImagesError: not a folder, or there are no image files in it.
    """
    if not directory.is_dir():
        found = "it is a file" if directory.exists() else "it does not exist"
        raise ImagesError(f"{directory} is not a folder of images ({found}).")
    files = [
        Path(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    ]
    if not files:
        known = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise ImagesError(f"{directory} holds no images ({known}), in it or in its folders.")
    return tuple(sorted(files))


def read_inputs(files: Sequence[Path], shape: tuple[int, int, int]) -> InputImages:
    """Read images into ``(C, H, W)``; one that cannot be read is no error."""
    pixels, readable, failures = [], [], {}
    for file in files:
        try:
            data = file.read_bytes()
            pixels.append(decode_image(data, shape[0], shape[1:], file.name)[0])
            readable.append(file)
        except ImagesError as error:
            failures[file] = str(error)
        except OSError as error:
            failures[file] = f"{file.name} cannot be read: {error.strerror or error}"
    stacked = torch.stack(pixels).float().div_(255) if pixels else torch.empty(0, *shape)
    return InputImages(stacked, tuple(readable), failures)
