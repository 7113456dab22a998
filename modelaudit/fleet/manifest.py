"""Read the manifest of a collection of models, labelled with the truth or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modelaudit.errors import ManifestError, UsageError
from modelaudit.preprocess_options import PreprocessOptions

ALL_TO_ALL = "all-to-all"
_LABELS = ("clean", "backdoored")


@dataclass(frozen=True)
class FleetModel:
    """One model of many, and what is known of it.

    Attributes:
        name: unique in its fleet.
        file, clean_dir, labels: see :class:`modelaudit.options.ScanOptions`.
    """

    name: str
    file: Path
    clean_dir: Path | None
    arch: str | None
    num_classes: int | None
    labels: Path | None
    preprocessing: PreprocessOptions


@dataclass(frozen=True)
class ManifestModel(FleetModel):
    """A labelled model.

    Attributes:
        backdoored: the truth.
        attack: its name; ``clean`` for a clean model.
        targets: the true target classes; every class for an all-to-all attack (``None``).
        suspect_dir, train_dir: inputs and training images to examine; see
            :class:`modelaudit.options.ScanOptions`.
        entry: the manifest's own entry, unknown keys included.
    """

    clean_dir: Path
    backdoored: bool
    attack: str
    targets: tuple[int, ...] | None
    suspect_dir: Path | None
    train_dir: Path | None
    entry: Mapping[str, Any]

    def is_right(self, found: tuple[int, ...]) -> bool:
        """Whether the surest target found is a true one."""
        return bool(found) and (self.targets is None or found[0] in self.targets)


def read_manifest(path: Path) -> tuple[ManifestModel, ...]:
    """The models of a labelled manifest.

    Raises:
        ManifestError: unreadable, not JSON, or an entry that lacks something.
    """
    return _unique(path, [_labelled(path, *one) for one in enumerate(_entries(path))])


def read_fleet(path: Path) -> tuple[FleetModel, ...]:
    """The models of a manifest in which only ``file`` is needed: nobody knows the truth.

    Without a ``name`` the file is the name.

    Raises:
        ManifestError: see :func:`read_manifest`.
    """
    models = []
    for index, entry in enumerate(_entries(path)):
        where = _place(path, index)
        entry = _object(where, entry)
        models.append(_model(path, where, {"name": entry.get("file"), **entry}))
    return _unique(path, models)


def _entries(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ManifestError(f"Cannot read the manifest {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"The manifest {path} is not JSON: {error}.") from error
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ManifestError(
            f'The manifest {path} must be an object {{"models": [...]}} with at least one model.'
        )
    return entries


_Model = TypeVar("_Model", bound=FleetModel)
_Kind = TypeVar("_Kind")


def _unique(path: Path, models: Sequence[_Model]) -> tuple[_Model, ...]:
    names = Counter(model.name for model in models)
    if twice := sorted(name for name, number in names.items() if number > 1):
        raise ManifestError(f"{path}: model names must be unique; twice: {', '.join(twice)}.")
    return tuple(models)


def _place(manifest: Path, index: int) -> str:
    return f"{manifest}: models[{index}]"


def _object(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ManifestError(f"{where}: expected an object, found {type(entry).__name__}.")
    return entry


def _model(manifest: Path, where: str, entry: Mapping[str, Any]) -> FleetModel:
    """The part of an entry that says what to scan and how."""
    for key in ("name", "file"):
        if not isinstance(entry.get(key), str):
            raise ManifestError(f"{where}: the text {key!r} is missing.")
    return FleetModel(
        name=entry["name"],
        file=manifest.absolute().parent / entry["file"],
        clean_dir=_path(manifest, where, entry, "clean_dir"),
        arch=_value(where, entry, "arch", str),
        num_classes=_value(where, entry, "num_classes", int),
        labels=_path(manifest, where, entry, "labels"),
        preprocessing=_preprocessing(where, entry.get("preprocess")),
    )


def _labelled(manifest: Path, index: int, entry: Any) -> ManifestModel:
    where = _place(manifest, index)
    entry = _object(where, entry)
    for key in ("name", "file", "clean_dir", "label"):
        if not isinstance(entry.get(key), str):
            raise ManifestError(f"{where}: the text {key!r} is missing.")
    if entry["label"] not in _LABELS:
        raise ManifestError(f"{where}: label {entry['label']!r}; expected {' or '.join(_LABELS)}.")
    return ManifestModel(
        **{
            **vars(_model(manifest, where, entry)),
            "clean_dir": manifest.absolute().parent / entry["clean_dir"],
        },
        backdoored=entry["label"] == "backdoored",
        attack=_value(where, entry, "attack", str) or entry["label"],
        targets=_targets(where, entry.get("targets")),
        suspect_dir=_path(manifest, where, entry, "suspect_dir"),
        train_dir=_path(manifest, where, entry, "train_dir"),
        entry=entry,
    )


def _value(where: str, entry: Mapping[str, Any], key: str, kind: type[_Kind]) -> _Kind | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, kind):
        raise ManifestError(f"{where}: {key} must be {kind.__name__}, found {value!r}.")
    return value


def _path(manifest: Path, where: str, entry: Mapping[str, Any], key: str) -> Path | None:
    value = _value(where, entry, key, str)
    return manifest.absolute().parent / value if value else None


def _targets(where: str, value: Any) -> tuple[int, ...] | None:
    if value == ALL_TO_ALL:
        return None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(target, int) for target in value):
        raise ManifestError(f"{where}: targets must be a list of class indices or {ALL_TO_ALL!r}.")
    return tuple(value)


def _preprocessing(where: str, value: Any) -> PreprocessOptions:
    """``NAME`` or ``{"mean": [...], "std": [...], "input_range": ..., "layout": ...}``."""
    if value is None or isinstance(value, str):
        value = {"name": value}
    known = {"name", "mean", "std", "input_range", "layout", "channel_order"}
    if not isinstance(value, dict) or not set(value) <= known:
        raise ManifestError(
            f"{where}: preprocess must be a name or an object with {', '.join(sorted(known))}."
        )
    try:
        return PreprocessOptions.parse(**value)
    except UsageError as error:
        raise ManifestError(f"{where}: preprocess: {error}") from error
