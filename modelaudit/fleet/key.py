"""Fingerprints of scans: the same fingerprint, the same result, whatever the files are called."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from modelaudit import __version__
from modelaudit.errors import ModelAuditError, UsageError
from modelaudit.image_folder import is_image
from modelaudit.loaders.fingerprint import digest
from modelaudit.options import ScanOptions
from modelaudit.scan_files import image_entries, model_files
from modelaudit.versions import library_versions


def fingerprints(
    scans: Mapping[str, ScanOptions], progress: Callable[[str], None]
) -> dict[str, str]:
    """Name -> what changes with the model, the images, the options and the version.

    Not with the time budget: what finishes within it is the same.

    Args:
        scans: name -> what to scan and how.
        progress: called with each name; gigabytes may have to be read.
    """
    images = cache(_images)  # a folder serves many models
    keys = {}
    for name, options in scans.items():
        progress(name)
        keys[name] = _fingerprint(options, images)
    return keys


def _fingerprint(options: ScanOptions, images: Callable[[Path], str]) -> str:
    try:
        if _runs_other_code(options):
            raise UsageError("Its version is not known here.")
        labels = options.labels.read_bytes() if options.labels else b""
        read = [
            *library_versions().values(),
            _model(options.model),
            images(options.clean_dir),
            hashlib.sha256(labels).hexdigest(),
            *_examined(options),
        ]
    except (ModelAuditError, OSError):  # what cannot be read may have changed: equals nothing
        read = [secrets.token_hex()]
    # The suffix decides about the format where the content does not.
    named = Path(options.model.suffix)
    same_work = replace(
        options,
        model=named,
        clean_dir=Path(),
        labels=None,
        suspect_dir=None,
        train_dir=None,
        time_budget=None,
    )
    text = f"{__version__} {' '.join(read)} {same_work!r}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _runs_other_code(options: ScanOptions) -> bool:
    """Whether code of other packages than ours decides what is found."""
    if ":" in (options.arch or ""):
        return True
    if not options.detectors:
        return False
    from detectors.registry import REGISTRY  # brings torch

    return not REGISTRY.keys() >= set(options.detectors)


def _examined(options: ScanOptions) -> Iterator[str]:
    """Of the images to examine, where there are some."""
    from modelaudit.input_files import list_inputs  # brings torch, which Ray's workers do not need

    for name, folder in (("suspects", options.suspect_dir), ("train", options.train_dir)):
        if folder is not None:
            files = ((one.relative_to(folder).as_posix(), one) for one in list_inputs(folder))
            yield f"{name} {digest(files)}"


def _model(model: Path) -> str:
    def named() -> Iterator[tuple[str, Path]]:
        for file in model_files(model):
            # What is scanned may have any name; what it refers to has the one it refers to.
            yield "" if file == model else file.relative_to(_folder(model)).as_posix(), file

    return digest(named())


def _folder(model: Path) -> Path:
    return model if model.is_dir() else model.parent


def _images(directory: Path) -> str:
    files = (entry for entry in image_entries(directory) if is_image(entry) and entry.exists())
    return digest((file.relative_to(directory).as_posix(), file) for file in files)
