"""Read the manifest of a labelled collection of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelaudit.errors import ManifestError, UsageError
from modelaudit.preprocess_options import PreprocessOptions

ALL_TO_ALL = "all-to-all"
_LABELS = ("clean", "backdoored")


@dataclass(frozen=True)
class ManifestModel:
    """A labelled model.

    Attributes:
        file, clean_dir, labels: absolute paths.
        backdoored: the truth.
        attack: its name; ``clean`` for a clean model.
        targets: the true target classes; every class for an all-to-all attack (``None``).
        entry: the manifest's own entry, unknown keys included.
    """

    name: str
    file: Path
    clean_dir: Path
    backdoored: bool
    attack: str
    targets: tuple[int, ...] | None
    arch: str | None
    num_classes: int | None
    labels: Path | None
    preprocessing: PreprocessOptions
    entry: Mapping[str, Any]

    def is_right(self, found: tuple[int, ...]) -> bool:
        """Whether the surest target found is a true one."""
        return bool(found) and (self.targets is None or found[0] in self.targets)


def read_manifest(path: Path) -> tuple[ManifestModel, ...]:
    """The models of a manifest.

    Raises:
        ManifestError: unreadable, not JSON, or an entry that lacks something.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ManifestError(f"Cannot read the manifest {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ManifestError(f"The manifest {path} is not JSON: {error}.") from error
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ManifestError(
            f'The manifest {path} must be an object {{"models": [...]}} with at least one model.'
        )
    models = tuple(_model(path, i, entry) for i, entry in enumerate(entries))
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ManifestError(f"{path}: model names must be unique; twice: {', '.join(twice)}.")
    return models


def _model(manifest: Path, index: int, entry: Any) -> ManifestModel:
    where = f"{manifest}: models[{index}]"
    if not isinstance(entry, dict):
        raise ManifestError(f"{where}: expected an object, found {type(entry).__name__}.")
    for key in ("name", "file", "clean_dir", "label"):
        if not isinstance(entry.get(key), str):
            raise ManifestError(f"{where}: the text {key!r} is missing.")
    if entry["label"] not in _LABELS:
        raise ManifestError(f"{where}: label {entry['label']!r}; expected {' or '.join(_LABELS)}.")
    for key, kind in (("arch", str), ("num_classes", int), ("labels", str), ("attack", str)):
        value = entry.get(key)
        if value is not None and not isinstance(value, kind):
            raise ManifestError(f"{where}: {key} must be {kind.__name__}, found {value!r}.")
    folder = manifest.absolute().parent
    labels = entry.get("labels")
    return ManifestModel(
        name=entry["name"],
        file=folder / entry["file"],
        clean_dir=folder / entry["clean_dir"],
        backdoored=entry["label"] == "backdoored",
        attack=str(entry.get("attack") or entry["label"]),
        targets=_targets(where, entry.get("targets")),
        arch=entry.get("arch"),
        num_classes=entry.get("num_classes"),
        labels=folder / labels if labels else None,
        preprocessing=_preprocessing(where, entry.get("preprocess")),
        entry=entry,
    )


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
