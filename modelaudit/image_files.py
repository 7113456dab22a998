"""Decode one image file into the channels and the size that a model needs."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modelaudit.errors import ImagesError

# Only these decoders run, whatever the file's name says: Pillow would otherwise start, for
# example, an external PostScript interpreter for a file that claims to be a picture.
_DECODERS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(path: Path, channels: int, size: tuple[int, int]) -> Tensor:
    """One image file as uint8 pixels ``[C, H, W]``; see :func:`decode_image`.

    Raises:
        ImagesError: the file cannot be read or decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImagesError(f"Cannot read the image {path}: {error.strerror or error}.") from error
    return decode_image(data, channels, size, str(path))[0]


def decode_image(
    data: bytes, channels: int, size: tuple[int, int], name: str
) -> tuple[Tensor, bool]:
    """Encoded bytes as uint8 pixels ``[C, H, W]``, and whether they had to be resized.

    Grey, bilevel, palette, CMYK and 16-bit images are converted. Where the model takes 1 or 3
    channels, transparent pixels are put on black; where it takes 4, an image without alpha is
    opaque. The EXIF orientation is ignored, as in torchvision's ``ImageFolder``, so the model sees
    what it saw in training. Another size is resized (bilinear, antialiased) without cropping: a
    different aspect ratio is squeezed.

    Args:
        data: content of a PNG, JPEG, BMP, PPM or WebP file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        size: ``(H, W)`` in pixels.
        name: for messages.

    Raises:
        ImagesError: not a readable image, or so large that Pillow takes it for a decompression
            bomb, or ``channels`` is not 1, 3 or 4.
    """
    if channels not in _MODES:
        raise ImagesError(
            f"Images can be read with 1 (grey), 3 (RGB) or 4 (RGBA) channels, but the model takes "
            f"{channels}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_DECODERS) as opened:
                image = _convert(opened, channels)
        resized = image.size != (size[1], size[0])
        if resized:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImagesError(f"{name} is refused: {error}") from error
    except MemoryError as error:
        raise ImagesError(f"{name} does not fit into memory.") from error
    # Pillow's decoders raise almost anything on a damaged file (OSError, SyntaxError, EOFError,
    # struct.error, ValueError ...); every one of them means the same to the user.
    except Exception as error:
        reason = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error)).splitlines()
        detail = reason[0] if reason else type(error).__name__
        raise ImagesError(f"{name} is not a readable image: {detail}") from error
    pixels = np.array(image, dtype=np.uint8).reshape(size[0], size[1], channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), resized


def image_shape(path: Path) -> tuple[int, int, int]:
    """``(C, H, W)`` of an image file as it lies on disk; C is 1 for grey files, else 3.

    Only the header is read.

    Raises:
        ImagesError: the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_DECODERS) as image:
                grey = image.mode in {"1", "L", "LA", "La", "I", "F"} or image.mode[:2] == "I;"
                return (1 if grey else 3, image.height, image.width)
    except Exception as error:  # as in decode_image
        raise ImagesError(f"{path} is not a readable image: {error}") from error


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """The image in the mode that has ``channels`` channels."""
    if image.mode.startswith("I"):
        # 16 bits per pixel; Pillow's own conversion would clip everything above 255.
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    transparent = image.mode in _ALPHA_MODES or "transparency" in image.info
    if channels == 4 or not transparent:
        return image.convert(_MODES[channels])
    image = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image).convert(_MODES[channels])
