"""Which models a folder or a manifest holds, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NoReturn

from modelaudit.errors import ModelAuditError, UsageError
from modelaudit.fleet.manifest import FleetModel, read_fleet
from modelaudit.loaders.file_kind import FileKind, file_kind, require_readable
from modelaudit.loaders.huggingface.files import CONFIG, HuggingFaceFiles, huggingface_files
from modelaudit.preprocess_options import PreprocessOptions

SUFFIXES = (".onnx", ".pt2", ".pt", ".pth", ".ts", ".safetensors")
#: Of the images beside a model.
IMAGES = "images"

_Kind = FileKind | Literal["huggingface", "unknown"]
# Of a model in several formats the first of these is scanned: with a graph in the file before
# without, and with a reference runtime to compare with before all.
_PREFERENCE: tuple[_Kind, ...] = (
    "onnx", "pt2", "torchscript", "huggingface", "safetensors", "state-dict", "unknown"
)  # fmt: skip
# What Hugging Face calls the weights of a folder, without the extension.
_FOLDERS_STEM = "model"


@dataclass(frozen=True)
class FoundModel:
    """A model to scan.

    Attributes:
        others: files beside it that hold the same model in another format, by their names; they are
            not scanned.
    """

    model: FleetModel
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    path: Path
    stem: str
    kind: _Kind


def find_models(
    source: Path,
    clean_dir: Path | None,
    labels: Path | None,
    exclude: Sequence[str] = (),
    one_format: bool = False,
) -> tuple[FoundModel, ...]:
    """The models of a manifest, or those below a folder.

    Below a folder every file with one of :data:`SUFFIXES` is a model, and every Hugging Face
    folder, complete or not. Hidden entries are left out, and links to folders are not followed.

    Args:
        clean_dir, labels: for the models whose entry in the manifest names none.
        exclude: patterns of names to leave out, as in a shell; ``*`` spans folders.
        one_format: believe that files of one folder that differ in the extension only are the same
            model, and take the one whose format says most.

    Raises:
        ManifestError: the manifest is malformed.
        UsageError: there is no such folder, or no model in it.
    """
    if source.is_dir():
        found = [
            one for folder in _folders(source) for one in _models_in(folder, source, one_format)
        ]
    elif source.exists():
        found = [FoundModel(model) for model in read_fleet(source)]
    else:
        raise UsageError(f"There is no {source}; expected a folder of models, or a manifest.")
    kept = [f for f in found if not any(fnmatch(f.model.name, one) for one in exclude)]
    if not kept:
        left_out = f" but the {len(found)} that --exclude names" if found else ""
        raise UsageError(
            f"{source} holds no models{left_out}; expected files with one of the endings "
            f"{', '.join(SUFFIXES)}, or Hugging Face folders."
        )
    return tuple(_completed(one, source, clean_dir, labels) for one in kept)


def _folders(top: Path) -> Iterator[Path]:
    for folder, inside, _ in os.walk(top, onerror=_unreadable):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        yield Path(folder)


def _unreadable(error: OSError) -> NoReturn:
    raise UsageError(
        f"Cannot look for models in {error.filename}: {error.strerror}. Make it readable, or sweep "
        "the folders that are."
    )


def _models_in(folder: Path, top: Path, one_format: bool) -> Iterator[FoundModel]:
    groups: dict[str, list[_Candidate]] = {}
    for candidate in _candidates(folder):
        groups.setdefault(candidate.stem, []).append(candidate)
    for _, group in sorted(groups.items()):
        best = min((one.kind for one in group), key=_PREFERENCE.index)
        left_out = [one for one in group if one_format and one.kind != best]
        others = tuple(one.path.name for one in left_out)
        for one in group:
            if one not in left_out:  # several where, say, a.pt and a.pth are both TorchScript
                yield FoundModel(_as_found(one.path, top), others)


def _candidates(folder: Path) -> Iterator[_Candidate]:
    parts = _huggingface(folder)
    if parts is not None or _is_damaged_folder(folder):
        yield _Candidate(folder, _FOLDERS_STEM, "huggingface")
    for file in sorted(folder.iterdir()):
        known = file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        if known and not file.is_dir() and not (parts and file in parts.read):
            yield _Candidate(file, file.stem, _kind(file))


def _huggingface(folder: Path) -> HuggingFaceFiles | None:
    """The folder as one model; ``None`` where it is none, or where it is incomplete."""
    try:
        return huggingface_files(folder) if (folder / CONFIG).is_file() else None
    except ModelAuditError:
        return None


def _is_damaged_folder(folder: Path) -> bool:
    """Whether the folder looks like one of Hugging Face's, with weights that no loader reads alone.

    It is a model that cannot be scanned then, and the scan says why.
    """
    return (folder / CONFIG).is_file() and any(folder.glob("pytorch_model*.bin"))


def _kind(file: Path) -> _Kind:
    try:
        require_readable(file)
        return file_kind(file)
    except (ModelAuditError, OSError):  # the scan will say why
        return "unknown"


def _as_found(path: Path, top: Path) -> FleetModel:
    name = path.relative_to(top).as_posix()
    return FleetModel(
        name=path.absolute().name if name == "." else name,
        file=path,
        clean_dir=None,
        arch=None,
        num_classes=None,
        labels=None,
        preprocessing=PreprocessOptions(),
    )


def _completed(
    found: FoundModel, source: Path, clean_dir: Path | None, labels: Path | None
) -> FoundModel:
    model = found.model
    images = model.clean_dir or clean_dir or _images_beside(model.file, source)
    completed = replace(model, clean_dir=images, labels=model.labels or labels)
    return replace(found, model=completed)


def _images_beside(model: Path, source: Path) -> Path | None:
    """The nearest folder of images: in the model's folder, or above it in the folder swept."""
    start = model if model.is_dir() else model.parent
    folders = (start, *start.parents) if source.is_dir() else (start,)
    for folder in folders:
        if (folder / IMAGES).is_dir():
            return folder / IMAGES
        if folder == source:
            break
    return None
