"""``modelaudit inspect``: what a model file is, and where every value comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelaudit.loaders import sha256_of
from modelaudit.loaders.types import StatedFacts
from modelaudit.loading import load_with_config
from modelaudit.model_config import CONFIG_NAME
from modelaudit.plain import to_plain
from modelaudit.stated import ARITHMETIC, COMMAND_LINE, MODEL_FILE, places_of

_MOST_NAMES = 12


@dataclass(frozen=True)
class Inspection:
    """What a model file is, as far as it and the files that belong to it say; plain data.

    Attributes:
        path: of the model.
        sha256: hex digest of the file.
        format: see :class:`modelaudit.loaders.LoadedModel`.
        input_shape: of one image; an unknown extent is ``None``; the whole is ``None`` when the
            file does not say.
        num_classes: number of outputs K, if it is stated.
        final_softmax: whether the graph shows one.
        stated: every value from the place that is believed; see :mod:`modelaudit.stated`.
        sources: name of a value that is stated, or ``num_classes`` -> the place.
        details: facts about the file.
        notes: what the loader noticed, contradictions, and values that are ignored.
    """

    path: str
    sha256: str
    format: str
    input_shape: tuple[int | None, ...] | None
    num_classes: int | None
    final_softmax: bool
    stated: StatedFacts
    sources: Mapping[str, str]
    details: Mapping[str, str]
    notes: tuple[str, ...]


def inspect_model(
    model: Path, arch: str | None = None, num_classes: int | None = None
) -> Inspection:
    """Load a model file and say what it is; nothing is scanned.

    Args:
        model: the file, or the folder of a format that is a folder.
        arch, num_classes: see :class:`modelaudit.loaders.LoadOptions`.

    Raises:
        ModelAuditError: the model, or a ``modelaudit.toml`` beside it, cannot be used.
    """
    loaded, config = load_with_config(model, arch, num_classes)
    resolution = places_of(loaded, (config.facts(),)).resolve()
    sources = dict(resolution.sources)
    if loaded.num_classes is not None:
        asked = {config.num_classes: CONFIG_NAME, num_classes: COMMAND_LINE}
        sources["num_classes"] = asked.get(loaded.num_classes, MODEL_FILE)
    return Inspection(
        path=str(model),
        sha256=sha256_of(model),
        format=loaded.format,
        input_shape=loaded.input_shape,
        num_classes=loaded.num_classes,
        final_softmax=loaded.logits_module is not None,
        stated=resolution.facts,
        sources=sources,
        details=dict(loaded.details),
        notes=(*loaded.notes, *resolution.notes),
    )


def inspection_json(inspection: Inspection) -> str:
    """The whole inspection, indented."""
    return json.dumps(to_plain(inspection), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def inspection_text(inspection: Inspection) -> str:
    """One line per value, with its place in brackets; a file's control characters are escaped."""
    shape = inspection.input_shape
    rows = {
        "file": inspection.path,
        "sha256": inspection.sha256,
        "format": inspection.format,
        "input": f"{_by(shape)} (without the batch)" if shape else "not stated",
        **_values(inspection),
        "final softmax": "yes" if inspection.final_softmax else "none found",
        **inspection.details,
    }
    width = max(map(len, rows))
    lines = [f"{key:<{width}}  {value}" for key, value in rows.items()]
    lines += [f"note: {note}" for note in inspection.notes]
    return "".join(f"{_printable(line)}\n" for line in lines)


#: Name (as in ``inspect --format``) -> renderer.
FORMATS: Mapping[str, Callable[[Inspection], str]] = MappingProxyType(
    {"text": inspection_text, "json": inspection_json}
)


def _values(inspection: Inspection) -> dict[str, str]:
    """The values that can be stated in several places, with the one that was believed."""
    stated, sources = inspection.stated, inspection.sources

    def shown(key: str, value: Any, otherwise: str) -> str:
        if value is None:
            return f"not stated; a scan {otherwise}"
        return f"{_short(key, value)}  [{sources[key]}]"

    rows = {
        "classes": shown("num_classes", inspection.num_classes, "counts them"),
        "labels": shown("labels", stated.labels, "takes the names of the class folders"),
        "image size": shown("image_size", stated.image_size, "takes that of the clean images"),
        "layout": shown("layout", stated.layout, "finds it by clean accuracy"),
    }
    arithmetic = {
        key.replace("_", " "): shown(key, getattr(stated, key), "")
        for key in ARITHMETIC
        if getattr(stated, key) is not None
    }
    return rows | (
        arithmetic
        or {"preprocessing": "not stated; a scan finds by clean accuracy what the input needs"}
    )


def _short(key: str, value: Any) -> str:
    if key == "labels":
        more = f" and {len(value) - _MOST_NAMES} more" if len(value) > _MOST_NAMES else ""
        return ", ".join(value[:_MOST_NAMES]) + more
    if key == "image_size":
        return _by(value)
    if isinstance(value, tuple):
        return " ".join(f"{number:.4g}" for number in value)
    return str(value)


def _by(shape: Sequence[int | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
