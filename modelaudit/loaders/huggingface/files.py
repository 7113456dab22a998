"""Which files of a folder belong to the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelaudit.errors import ModelFileError, UnsafeModelError

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json",
            "pytorch_model.bin", "pytorch_model.bin.index.json")  # fmt: skip
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
# The largest index of a sharded model has some MB; JSON is not parsed beyond this.
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True)
class HuggingFaceFiles:
    """The files of a model.

    Attributes:
        config: content of ``config.json``.
        weights: safetensors or pickle files; several if the weights are sharded.
        preprocessor: what the images go through, where a file says so.
        preprocessor_name: of that file.
        read: every file whose content counts.
    """

    folder: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    preprocessor: Mapping[str, Any]
    preprocessor_name: str
    read: tuple[Path, ...]


def huggingface_files(path: Path) -> HuggingFaceFiles | None:
    """The model that ``path`` is or belongs to; ``None`` if it is no part of such a folder.

    Args:
        path: the folder, its ``config.json``, or a weights file in it.

    Raises:
        ModelFileError: the folder is incomplete or one of its files is damaged.
        UnsafeModelError: its index names files elsewhere.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file() or not (path.is_dir() or _is_part(path)):
        return None
    config = read_json(folder / CONFIG)
    if not any(isinstance(config.get(key), str) for key in ("model_type", "architecture")):
        if path.name != CONFIG and not path.is_dir():
            return None  # weights beside somebody else's config.json
        raise ModelFileError(
            f"{folder / CONFIG} names neither a model_type (transformers) nor an architecture "
            "(timm). Give the model file itself, with --arch if it holds weights only."
        )
    given = path if path.is_file() and path.name != CONFIG else None
    chosen = _choose_weights(folder, given)
    weights = _shards(chosen) if chosen.suffix == ".json" else (chosen,)
    preprocessor = next((folder / n for n in _PREPROCESSORS if (folder / n).is_file()), None)
    content = read_json(preprocessor) if preprocessor else {}
    nested = content.get("image_processor")
    read = [folder / CONFIG, chosen, *weights, *([preprocessor] if preprocessor else [])]
    return HuggingFaceFiles(
        folder,
        config,
        weights,
        nested if isinstance(nested, Mapping) else content,
        preprocessor.name if preprocessor else "",
        tuple(dict.fromkeys(read)),
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        ModelFileError: it is something else.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ModelFileError(f"{path} is larger than {_LARGEST_JSON >> 20} MiB of JSON.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content


def _is_part(path: Path) -> bool:
    weights = path.suffix == ".safetensors" or path.name in _WEIGHTS
    return path.is_file() and (path.name == CONFIG or weights)


def _choose_weights(folder: Path, given: Path | None) -> Path:
    # One file of several is not the model: its index is.
    if given is not None and not ("-of-" in given.name and _indices(folder)):
        return given
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is not None:
        return found
    others = sorted(file.name for file in folder.iterdir() if file.suffix in _GRAPHS)
    hint = f" Give {folder / others[0]} itself." if others else ""
    raise ModelFileError(
        f"{folder} has a config.json but no weights; expected {', '.join(_WEIGHTS)}.{hint}"
    )


_GRAPHS = (".onnx", ".pt2", ".pt", ".safetensors", ".h5", ".msgpack")


def _indices(folder: Path) -> list[Path]:
    return [folder / n for n in _WEIGHTS if n.endswith(".json") and (folder / n).is_file()]


def _shards(index: Path) -> tuple[Path, ...]:
    """The weights files that an index names, all in its own folder."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelFileError(f"{index} has no weight_map; expected names of tensors and files.")
    names = sorted({str(name) for name in table.values()})
    for name in names:
        if Path(name).name != name or Path(name).suffix not in (".safetensors", ".bin"):
            raise UnsafeModelError(
                f"{index} is refused: it names {name!r}, which is not a weights file beside it."
            )
        if not _exists(index.parent / name):
            raise ModelFileError(
                f"{index} names {name!r}, which is missing. Is the download complete?"
            )
    return tuple(index.parent / name for name in names)


def _exists(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # such as a name that is too long
        return False
