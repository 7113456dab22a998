"""What a node of a cluster does: unpack a model and its images, scan, say what came out."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelaudit import __version__
from modelaudit.errors import ModelAuditError, UsageError, internal_error
from modelaudit.finished import FinishedDetector
from modelaudit.isolation.limits import Limits
from modelaudit.options import ScanOptions
from modelaudit.plain import to_plain
from modelaudit.run import scan_in_worker, scan_part_in_worker
from modelaudit.scan_files import image_listing, write_content

#: Path below a folder -> content; see :func:`modelaudit.scan_files.content_of`.
Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Parcel:
    """A scan as it is sent to a node.

    Attributes:
        version: of modelaudit where the fleet is counted.
        options: with absolute paths as they are there.
        listing: of the clean images there; see :func:`modelaudit.scan_files.image_listing`.
        labels: content of the labels file.
        limits: of the worker process; ``None`` for a process without limits.
        default_memory: whether its memory is the default of where the fleet is counted.
        threads: of torch.
        part: whether only the results of the detectors are wanted; see
            :mod:`modelaudit.fleet.parts`.
        finished: detectors of this scan that other parts of it ran.
    """

    version: str
    options: ScanOptions
    listing: tuple[tuple[str, int, int], ...]
    labels: bytes | None
    limits: Limits | None
    default_memory: bool
    threads: int
    part: bool = False
    finished: tuple[FinishedDetector, ...] = ()


def scan_parcel(parcel: Parcel, model: Content, images: Callable[[], Content]) -> dict[str, Any]:
    """``{"report": ...}``, of a part ``{"finished": [...]}``, or ``{"error": {"kind", "message",
    "stage"}}``; plain values.

    Args:
        model: the files of the model; names begin in the folder that the model lies in.
        images: fetches the clean images; called where this node does not see the same folder.
    """
    try:
        if parcel.version != __version__:
            raise UsageError(
                f"The node {platform.node()} has modelaudit {__version__}, but {parcel.version}"
                " sent the scan; install the same version on all nodes."
            )
        with tempfile.TemporaryDirectory(prefix="modelaudit-") as folder:
            return _scan(parcel, model, images, Path(folder))
    except ModelAuditError as error:
        return _failed(error)
    except Exception as error:
        return _failed(internal_error(error))


def _failed(error: ModelAuditError) -> dict[str, Any]:
    cause = {"kind": type(error).__name__, "message": str(error), "stage": error.stage}
    return {"error": cause}


def _scan(
    parcel: Parcel, model: Content, images: Callable[[], Content], folder: Path
) -> dict[str, Any]:
    there = parcel.options
    here = replace(there, model=folder / "model" / there.model.name)
    write_content(model, here.model.parent)
    moved = {str(here.model.parent): str(there.model.parent)}
    if not _same_images(parcel):
        here = replace(here, clean_dir=folder / "images")
        here.clean_dir.mkdir()
        write_content(images(), here.clean_dir)
        moved[str(here.clean_dir)] = str(there.clean_dir)
    if there.labels is not None and parcel.labels is not None:
        here = replace(here, labels=folder / "labels" / there.labels.name)
        write_content({there.labels.name: parcel.labels}, folder / "labels")
        moved[str(folder / "labels")] = str(there.labels.parent)
    try:
        plain = _found(parcel, here)
    except ModelAuditError as error:
        raise type(error)(_renamed(str(error), moved), stage=error.stage) from error
    renamed: dict[str, Any] = _renamed(plain, moved)
    return renamed


def _found(parcel: Parcel, options: ScanOptions) -> dict[str, Any]:
    limits, threads = _limits(parcel), parcel.threads
    if parcel.part:
        return {"finished": to_plain(scan_part_in_worker(options, limits, threads))}
    report = scan_in_worker(options, limits, threads=threads, finished=parcel.finished)
    return {"report": to_plain(report)}


def _same_images(parcel: Parcel) -> bool:
    try:
        return image_listing(parcel.options.clean_dir) == parcel.listing
    except (ModelAuditError, OSError):
        return False


def _limits(parcel: Parcel) -> Limits | None:
    """The limits; by default the memory is this machine's, shared by as many scans as it runs."""
    if parcel.limits is None or not parcel.default_memory:
        return parcel.limits
    scans = max(1, (os.cpu_count() or 1) // parcel.threads)
    return replace(parcel.limits, memory=max(1, Limits().memory // scans))


def _renamed(value: Any, moved: Mapping[str, str]) -> Any:
    """The value with the folders in all texts as they are called where the fleet is counted."""
    if isinstance(value, str):
        for here, there in moved.items():
            value = value.replace(here, there)
        return value
    if isinstance(value, dict):
        return {key: _renamed(item, moved) for key, item in value.items()}
    return [_renamed(item, moved) for item in value] if isinstance(value, list) else value
