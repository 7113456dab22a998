"""Clean images that are in memory: check them, and write them to a folder for a scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modelaudit.errors import ImagesError

_CHANNELS = (1, 3, 4)
_EXPECTED = "expected pixels [n, C, H, W] with C = 1, 3 or 4: float in [0, 1], or uint8 in 0 .. 255"
#: Name of the labels file beside the class folders, which no class folder can have.
LABELS_NAME = "labels.json"


def as_pixels(pixels: Any) -> Tensor:
    """Tensors or arrays as float32 pixels ``[n, C, H, W]`` in [0, 1], on the CPU.

    Raises:
        ImagesError: another shape, type or range; normalised images are refused by their range.
    """
    try:
        values = torch.as_tensor(pixels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImagesError(f"{_EXPECTED}; found {type(pixels).__name__} ({error}).") from error
    if values.ndim != 4 or values.shape[1] not in _CHANNELS or 0 in values.shape:
        raise ImagesError(f"{_EXPECTED}; found the shape {list(values.shape)}.")
    if values.dtype == torch.uint8:
        return values.float().div_(255.0)
    if not values.is_floating_point():
        raise ImagesError(f"{_EXPECTED}; found {values.dtype}.")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also if one of them is NaN
        raise ImagesError(
            f"{_EXPECTED}; found values from {low:g} to {high:g}. Give images before they are "
            "normalised: the preprocessing is part of the model."
        )
    return values.float()


def as_labels(labels: Any, images: int, class_names: tuple[str, ...]) -> Tensor:
    """Class indices as int64 ``[n]``, on the CPU.

    Raises:
        ImagesError: not one whole number for each image, or one without a class.
    """
    expected = f"expected {images} labels, whole numbers from 0, one for each image"
    try:
        values = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImagesError(f"{expected}; found {type(labels).__name__} ({error}).") from error
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise ImagesError(f"{expected}; found {values.dtype}.")
    if values.shape != (images,):
        raise ImagesError(f"{expected}; found the shape {list(values.shape)}.")
    if int(values.min()) < 0:
        raise ImagesError(f"{expected}; found {int(values.min())}.")
    if class_names and int(values.max()) >= len(class_names):
        raise ImagesError(f"There are {len(class_names)} names, but a label {int(values.max())}.")
    return values.long()


def write_folder(
    pixels: Tensor, labels: Tensor, class_names: tuple[str, ...], folder: Path
) -> Path | None:
    """Write images as ``folder/<class index>/<number>.png``, 8 bits per value.

    Args:
        pixels: as :func:`as_pixels` returns them; rounded to multiples of 1/255.
        labels: as :func:`as_labels` returns them.
        class_names: of the outputs in order, or none.

    Returns:
        The labels file in that folder; ``None`` if there are no names.
    """
    for label in labels.unique().tolist():
        (folder / str(label)).mkdir()
    values = pixels.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    for number, (image, label) in enumerate(zip(values, labels.tolist(), strict=True)):
        _write_png(image, folder / str(label) / f"{number:08}.png")
    if not class_names:
        return None
    file = folder / LABELS_NAME
    file.write_text(json.dumps(class_names), encoding="utf-8")
    return file


def are_bytes(pixels: Tensor) -> bool:
    """Whether all of the pixels are multiples of 1/255, as those of image files are."""
    scaled = pixels * 255
    return bool(((scaled - scaled.round()).abs() < 1e-3).all())


def _write_png(image: np.ndarray, file: Path) -> None:
    grey = image.shape[2] == 1
    Image.fromarray(image[:, :, 0] if grey else image).save(file, compress_level=1)
