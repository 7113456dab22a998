"""What the JSON files of a Hugging Face folder say about classes and input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelaudit.loaders.huggingface.files import CONFIG, HuggingFaceFiles
from modelaudit.loaders.types import StatedFacts

_FULL_RANGE = 255.0


def transformers_facts(files: HuggingFaceFiles, num_classes: int) -> tuple[StatedFacts, ...]:
    """From ``preprocessor_config.json``, which says more of the input, and ``config.json``."""
    # Models of images and text, such as CLIP, describe the part for images apart.
    vision = files.config.get("vision_config")
    size = (vision if isinstance(vision, Mapping) else files.config).get("image_size")
    labels = _labels(files.config.get("id2label"), num_classes)
    config = StatedFacts(source=CONFIG, labels=labels, image_size=image_size(size))
    if not files.preprocessor:
        return (config,)
    return (_input_facts(files.preprocessor_name, files.preprocessor), config)


def timm_facts(files: HuggingFaceFiles, num_classes: int) -> tuple[StatedFacts, ...]:
    """From timm's ``pretrained_cfg``: pixels are scaled to [0, 1] and then normalised."""
    cfg = files.config.get("pretrained_cfg") or {}
    names = files.config.get("label_names") or cfg.get("label_names")
    size = cfg.get("input_size")
    facts = StatedFacts(
        source=f"{CONFIG} (pretrained_cfg)",
        labels=_labels(dict(enumerate(names)) if isinstance(names, list) else None, num_classes),
        mean=_numbers(cfg.get("mean")),
        std=_numbers(cfg.get("std")),
        layout="NCHW",
        image_size=image_size(size[1:]) if isinstance(size, list) and len(size) == 3 else None,
    )
    normalised = facts.mean is not None and facts.std is not None
    return (replace(facts, input_range="0-1", channel_order="RGB") if normalised else facts,)


def image_size(value: Any) -> tuple[int, int] | None:
    """``(H, W)`` from the many ways in which it is written; ``None`` if there is none.

    A length, ``[H, W]``, ``{"height", "width"}`` or ``{"shortest_edge"}``, which stands for a
    square: what is then cropped, if anything is, has a size of its own.
    """
    if isinstance(value, Mapping):
        if "height" in value and "width" in value:
            value = [value["height"], value["width"]]
        else:
            value = value.get("shortest_edge")
    if type(value) is int:
        value = [value, value]
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        height, width = value
        return (height, width) if min(height, width) > 0 else None
    return None


def _input_facts(name: str, content: Mapping[str, Any]) -> StatedFacts:
    crops = content.get("do_center_crop") and content.get("crop_size") is not None
    size = content.get("crop_size" if crops else "size")
    mean, std, full_range = _normalisation(content)
    return StatedFacts(
        source=name,
        mean=mean,
        std=std,
        input_range=None if mean is None else "0-255" if full_range else "0-1",
        channel_order="BGR" if content.get("do_flip_channel_order") else "RGB",
        layout="NCHW",
        image_size=image_size(size) if crops or content.get("do_resize", True) else None,
    )


def _normalisation(
    content: Mapping[str, Any],
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool]:
    """Mean and deviation in [0, 1] units, and whether the input is in [0, 255].

    Pixels p in [0, 255] become ``(p * factor - offset - mean) / std``. With x = p / 255 in [0, 1]
    that is ``(x - (mean + offset) / scale) / (std / scale)``, where ``scale = 255 * factor``.
    """
    mean, std = _numbers(content.get("image_mean")), _numbers(content.get("image_std"))
    if not content.get("do_normalize", mean is not None):
        mean, std = (0.0,), (1.0,)
    if mean is None or std is None:
        return None, None, False
    rescales = content.get("do_rescale", True)
    factor = content.get("rescale_factor", 1 / _FULL_RANGE) if rescales else 1.0
    if not isinstance(factor, int | float) or factor <= 0:
        return None, None, False
    offset = 1.0 if rescales and content.get("rescale_offset") else 0.0
    scale = _FULL_RANGE * factor
    if scale == _FULL_RANGE and mean == (0.0,) and std == (1.0,):
        return mean, std, True
    if abs(scale - 1) < 1e-6:
        scale = 1.0  # factors are written with few digits
    centre = tuple((value + offset) / scale for value in mean)
    return centre, tuple(value / scale for value in std), False


def _numbers(values: Any) -> tuple[float, ...] | None:
    if isinstance(values, int | float) and not isinstance(values, bool):
        values = [values]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    if not all(isinstance(v, int | float) for v in values):
        return None
    return tuple(float(v) for v in values)


def _labels(table: Any, num_classes: int) -> tuple[str, ...] | None:
    """Names of all outputs; none where they are only numbers in disguise (``LABEL_0``)."""
    if not isinstance(table, Mapping):
        return None
    names = {str(key): str(name) for key, name in table.items()}
    if set(names) != {str(k) for k in range(num_classes)}:
        return None
    if all(name == f"LABEL_{key}" for key, name in names.items()):
        return None
    return tuple(names[str(k)] for k in range(num_classes))
