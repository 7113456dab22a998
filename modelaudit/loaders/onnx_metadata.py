"""What the ``metadata_props`` of an ONNX file say about classes and input.

The ``Image.*`` keys are those of https://onnx.ai/onnx/repo-docs/MetadataProps.html (keys and values
are case insensitive); the others are what exporters write: Ultralytics ``names`` and ``imgsz``,
Hugging Face ``id2label``, and plain ``labels``, ``classes``, ``mean`` and ``std``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from modelaudit.labels import ordered_names
from modelaudit.loaders.types import StatedFacts

SOURCE = "ONNX metadata"

# The stronger first.
_LABELS = ("id2label", "names", "labels", "classes", "class_names", "class_labels")
_MEANS = ("mean", "image_mean", "norm_mean")
_DEVIATIONS = ("std", "image_std", "norm_std")
_SIZES = ("imgsz", "image_size", "img_size", "input_size")
_LONGEST = 2**20
_LONGEST_PYTHON = 2**18  # its syntax tree is some hundred times as large
_ORDERS = {"rgb8": "RGB", "bgr8": "BGR", "gray8": None, "rgba8": None}
_RANGES: Mapping[str, dict[str, Any]] = {
    "nominalrange_0_255": {"mean": (0.0,), "std": (1.0,), "input_range": "0-255"},
    "normalized_0_1": {"mean": (0.0,), "std": (1.0,), "input_range": "0-1"},
    "normalized_1_1": {"mean": (0.5,), "std": (0.5,), "input_range": "0-1"},
}


def read_metadata(properties: Mapping[str, str]) -> tuple[StatedFacts, tuple[str, ...]]:
    """The facts among the properties; what is malformed is left out.

    Numbers of a normalisation win over ``Image.NominalPixelRange``, which then describes the pixels
    before it.

    Args:
        properties: key -> value as stored.

    Returns:
        The facts, and a note on every property that has a known key and no usable value.
    """
    known = {key.lower(): (key, value) for key, value in properties.items()}
    notes: list[str] = []

    def first(keys: tuple[str, ...], parse: Callable[[str], Any]) -> Any:
        for key, value in (known[key] for key in keys if key in known):
            try:
                if len(value) > _LONGEST:
                    raise ValueError(f"longer than {_LONGEST} characters")
                return parse(value)
            # Deeply nested texts exhaust the parsers in these ways.
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                reason = (
                    str(error).splitlines()[0] if isinstance(error, ValueError) else "malformed"
                )
                notes.append(f"The {SOURCE} {key!r} is ignored: {reason[:120]}.")
        return None

    values = first(("image.nominalpixelrange",), _pixel_range) or {}
    mean, std = first(_MEANS, _numbers), first(_DEVIATIONS, _numbers)
    try:
        values = _normalisation(mean, std) or values
    except ValueError as error:
        notes.append(f"The mean and std of the {SOURCE} are ignored: {error}.")
    facts = StatedFacts(
        SOURCE,
        labels=first(_LABELS, _names),
        channel_order=first(("image.bitmappixelformat",), _channel_order),
        image_size=first(_SIZES, _size),
        **values,
    )
    return facts, tuple(notes)


def _literal(text: str) -> Any:
    """The value of a JSON text or a Python literal.

    Raises:
        ValueError, SyntaxError, RecursionError, MemoryError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        if len(text) > _LONGEST_PYTHON:
            raise
        return ast.literal_eval(text.strip())


def _names(text: str) -> tuple[str, ...]:
    if text.lstrip().startswith(("{", "[", "(")):
        names = ordered_names(_literal(text))
    else:
        names = tuple(
            part.strip() for part in re.split("\n" if "\n" in text.strip() else ",", text.strip())
        )
    if len(names) < 2:
        raise ValueError("no list of names")
    return names


def _numbers(text: str) -> tuple[float, ...]:
    """``[0.5, 0.5]``, ``0.5,0.5`` or ``0.5 0.5``."""
    parts = text.strip("[]() \n").replace(",", " ").split()
    if not 0 < len(parts) <= 4:
        raise ValueError("no number per channel")
    return tuple(map(float, parts))


def _size(text: str) -> tuple[int, int]:
    """``[224, 224]``, ``224x224`` or ``224``: height and width."""
    parts = re.fullmatch(r"[\[(]?\s*(\d{1,5})(?:\s*[,xX\s]\s*(\d{1,5}))?\s*[\])]?", text.strip())
    if parts is None:
        raise ValueError("no height and width")
    return int(parts[1]), int(parts[2] or parts[1])


def _pixel_range(text: str) -> dict[str, Any]:
    if text.strip().lower() not in _RANGES:
        raise ValueError(f"the pixel range {text[:40]!r} is not one that is supported")
    return _RANGES[text.strip().lower()]


def _channel_order(text: str) -> str | None:
    if text.strip().lower() not in _ORDERS:
        raise ValueError(f"the pixel format {text[:40]!r} is not one that is supported")
    return _ORDERS[text.strip().lower()]


def _normalisation(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> dict[str, Any] | None:
    """Mean and deviation in [0, 1] units.

    A number above 1 shows that they are meant for pixels in 0 .. 255. Then ``(255 x - m) / s`` with
    x in [0, 1] equals ``(x - m / 255) / (s / 255)``; with s = 1 that is the range 0-255.

    Raises:
        ValueError: numbers of both kinds, so that the units are unknown.
    """
    if mean is None and std is None:
        return None
    if max((*(mean or ()), *(std or ()))) <= 1:
        return {"mean": mean, "std": std}
    in_bytes = tuple(m / 255 for m in mean or (0.0,))
    if std is None or set(std) == {1.0}:
        return {"mean": in_bytes, "std": (1.0,), "input_range": "0-255"}
    if min(std) < 1 or (mean and 0 < max(mean) <= 1):
        raise ValueError(f"mean {mean} and std {std} are not of the same units")
    return {"mean": in_bytes, "std": tuple(s / 255 for s in std)}
