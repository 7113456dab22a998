"""``modelaudit.toml`` beside a model: what its owner says about classes and input.

::

    arch = "resnet18"                  # of torchvision, for weights without a graph
    num_classes = 10                   # likewise
    labels = ["cat", "dog", ...]       # or labels_file = "labels.txt", in the same folder

    [preprocessing]
    name = "imagenet"                  # or mean, std, input_range and channel_order
    layout = "NCHW"
    image_size = 224                   # or [height, width]

Every key is optional. The file travels with the model, so it is as little trusted as the model:
nothing in it is run, and it reaches no file outside its folder. It may also hold settings of the
program, which :mod:`modelaudit.config` reads; here they count for nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelaudit.errors import UsageError
from modelaudit.labels import read_labels
from modelaudit.loaders.types import StatedFacts
from modelaudit.preprocess_options import PreprocessOptions
from modelaudit.toml_files import CONFIG_NAME, read_toml

_MOST_LABEL_BYTES = 2**22
_LARGEST_SIDE = 8192


@dataclass(frozen=True)
class ModelConfig:
    """The content of a ``modelaudit.toml``; what it leaves open is ``None``.

    Attributes:
        labels: names of the outputs 0 .. K-1.
        preprocessing: what it says about the input's values and layout.
        image_size: ``(H, W)`` in pixels.
        arch: name of a torchvision classification model.
        num_classes: number of outputs K.
    """

    labels: tuple[str, ...] | None = None
    preprocessing: PreprocessOptions = field(default_factory=PreprocessOptions)
    image_size: tuple[int, int] | None = None
    arch: str | None = None
    num_classes: int | None = None

    def facts(self) -> StatedFacts:
        """The same for the resolver."""
        stated = self.preprocessing.facts(CONFIG_NAME)
        return replace(stated, labels=self.labels, image_size=self.image_size)


def read_model_config(model: Path) -> ModelConfig:
    """The ``modelaudit.toml`` beside the file ``model``, or in the folder ``model``.

    Returns:
        An empty one where there is no such file.

    Raises:
        UsageError: it cannot be read, or a key or a value is not valid.
        ImagesError: its labels file is malformed.
    """
    path = _path(model)
    if not path.exists():
        return ModelConfig()
    data = _content(path)
    table = data.get("preprocessing", {})
    settings = {key: value for key, value in table.items() if key != "image_size"}
    return ModelConfig(
        labels=_labels(path, data),
        preprocessing=PreprocessOptions.parse(**settings, place=str(path)),
        image_size=_size(table.get("image_size")),
        arch=_arch(path, data.get("arch")),
        num_classes=data.get("num_classes"),
    )


def config_files(model: Path) -> tuple[Path, ...]:
    """The files that :func:`read_model_config` reads.

    Raises:
        UsageError: as there.
    """
    path = _path(model)
    if not path.exists():
        return ()
    data = _content(path)
    return (path, _labels_file(path, data["labels_file"])) if "labels_file" in data else (path,)


def _path(model: Path) -> Path:
    model = Path(model)
    return (model if model.is_dir() else model.parent) / CONFIG_NAME


def _content(path: Path) -> dict[str, Any]:
    return facts_of(path, read_toml(path))


def facts_of(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """What the content of a ``modelaudit.toml`` says about models.

    Raises:
        UsageError: a key that is neither that nor a setting of the program, or a wrong value.
    """
    facts = {key: value for key, value in data.items() if is_fact(key) or not _is_setting(key)}
    _check(path, facts, _TOP_LEVEL, "")
    _check(path, facts.get("preprocessing", {}), _PREPROCESSING, "preprocessing.")
    return facts


def is_fact(key: str) -> bool:
    """Whether a top-level key is about models; those of ``[preprocessing]`` are misplaced there."""
    return key.replace("-", "_") in {*_TOP_LEVEL, *_PREPROCESSING}


def _is_setting(key: str) -> bool:
    """Whether a top-level key, or table, is for the command line, which is asked only now."""
    from modelaudit.cli.flags import setting_names

    return key.replace("_", "-") in setting_names()


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIDE


def _is_size(value: Any) -> bool:
    return _is_side(value) or (
        isinstance(value, list) and len(value) == 2 and all(map(_is_side, value))
    )


_Keys = Mapping[str, tuple[Callable[[Any], bool], str]]
_TOP_LEVEL: _Keys = {
    "arch": (_is_text, "the name of a torchvision classification model"),
    "num_classes": (lambda value: type(value) is int and value >= 2, "a whole number, at least 2"),
    "labels": (_is_texts, "a list of names that are not empty, in output order"),
    "labels_file": (_is_text, "the name of a file in the same folder"),
    "preprocessing": (lambda value: isinstance(value, dict), "a table, [preprocessing]"),
}
_PREPROCESSING: _Keys = {
    "name": (_is_text, "the name of a preprocessing, such as imagenet"),
    "mean": (_is_numbers, "a list of numbers from 0 to 1"),
    "std": (_is_numbers, "a list of numbers above 0 and at most 1"),
    "input_range": (_is_text, "0-1 or 0-255, as text"),
    "channel_order": (_is_text, "RGB or BGR"),
    "layout": (_is_text, "NCHW or NHWC"),
    "image_size": (_is_size, f"pixels up to {_LARGEST_SIDE}: N or [height, width]"),
}


def _check(path: Path, table: Mapping[str, Any], keys: _Keys, prefix: str) -> None:
    """Is every key known and its value of the right type?"""
    for key, value in table.items():
        if key not in keys:
            raise UsageError(
                f"{path}: there is no key {prefix + key!r}; {_nearest(key, keys, prefix)}"
            )
        fits, expected = keys[key]
        if not fits(value):
            found = repr(value)
            found = found if len(found) <= 60 else f"{found[:60]}..."
            raise UsageError(f"{path}: {prefix}{key} must be {expected}; found {found}.")


def _nearest(key: str, keys: _Keys, prefix: str) -> str:
    """The key that was probably meant, of this table or, under another name, of the other."""
    every = {name: name for name in _TOP_LEVEL}
    every.update({name: f"preprocessing.{name}" for name in _PREPROCESSING})
    close = difflib.get_close_matches(key, every, n=1)
    if close:
        return f"did you mean {every[close[0]]!r}?"
    return f"known here: {', '.join(prefix + name for name in keys)}."


def _labels(path: Path, data: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "labels_file" not in data:
        labels = data.get("labels")
        return None if labels is None else tuple(name.strip() for name in labels)
    if "labels" in data:
        raise UsageError(f"{path}: labels and labels_file exclude each other; drop one.")
    return read_labels(_labels_file(path, data["labels_file"]))


def _labels_file(path: Path, name: str) -> Path:
    folder = path.parent.resolve()
    try:
        file = (folder / name).resolve()
        inside = file.is_relative_to(folder)
    except (OSError, ValueError, RuntimeError) as error:  # null bytes, loops of links
        raise UsageError(f"{path}: labels_file {name!r} cannot be used: {error}.") from error
    if not inside:
        raise UsageError(
            f"{path}: labels_file must stay in the folder of the model; found {name!r}."
        )
    if not file.is_file() or file.stat().st_size > _MOST_LABEL_BYTES:
        raise UsageError(
            f"{path}: labels_file {name!r} must be a file of at most "
            f"{_MOST_LABEL_BYTES // 2**20} MiB in the folder of the model."
        )
    return path.parent / file.relative_to(folder)


def _size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _arch(path: Path, name: str | None) -> str | None:
    """Only names: an import path would let a file that travels with the model run code."""
    if name is None or re.fullmatch(r"\w+", name, re.ASCII):
        return name
    raise UsageError(
        f"{path}: arch {name!r} is not the name of a torchvision model. Code is never run because "
        "of this file; to run your own, give --arch package.module:factory on the command line."
    )
