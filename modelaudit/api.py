"""The program as functions, for notebooks and tests: what ``modelaudit scan`` does, typed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from modelaudit.errors import ImagesError, UsageError
from modelaudit.isolation.limits import Limits
from modelaudit.keywords import ScanKeywords, options_of
from modelaudit.run import run_scan
from modelaudit.stages import StageProgress

if TYPE_CHECKING:
    from torch import nn

    from modelaudit.classifier import Classifier
    from modelaudit.images import CleanImages
    from modelaudit.loaders import LoadedModel
    from modelaudit.options import ScanOptions
    from modelaudit.report import Report

_MEMORY = "(in memory)"
_ROUNDED = (
    "Some pixels are no multiples of 1/255; they were rounded to 8 bits, as in an image file."
)


def scan(
    model: str | Path | nn.Module,
    clean_images: str | Path | CleanImages,
    *,
    isolation: bool = True,
    limits: Limits | None = None,
    progress: StageProgress | None = None,
    **options: Unpack[ScanKeywords],
) -> Report:
    """Scan an image classifier for backdoors; the same scan as that of ``modelaudit scan``.

    What is not given here has the command's default. Configuration files, environment variables and
    what unfinished scans left do not count.

    Args:
        model: path of a model, or a torch module that takes a batch of images and returns scores
            ``[B, K]``. A module is copied, never changed, and it runs in this process.
        clean_images: a folder with one folder of images per class, or images in memory
            (:meth:`CleanImages.from_tensors`), which the scan reads as 8-bit files.
        isolation: whether a model file is opened and run in a process of its own, with ``limits``.
        limits: of that process; the defaults are those of the command.
        progress: called with a stage's name and the share of it that is done, in [0, 1].
        options: see :class:`modelaudit.keywords.ScanKeywords`.

    Returns:
        The report. Its ``verdict`` is a :class:`modelaudit.Verdict`; notebooks show it as HTML.

    Raises:
        ModelAuditError: an option, the model or the images cannot be used; never for what was
            found.
    """
    if limits is not None and not (isolation and isinstance(model, str | Path)):
        raise UsageError(
            "limits are those of the process of its own in which a model file is opened; drop them "
            "for a module in memory and with isolation=False."
        )
    with _prepared(model, clean_images, options) as (chosen, loaded):
        if loaded is None:
            report = run_scan(chosen, (limits or Limits()) if isolation else None, progress)
        else:
            from modelaudit.scanning import scan as scan_here

            report = scan_here(chosen, progress, loaded).report
    return report if isinstance(clean_images, str | Path) else _as_given(report, clean_images)


def load_classifier(
    model: str | Path | nn.Module,
    clean_images: str | Path | CleanImages,
    *,
    progress: StageProgress | None = None,
    **options: Unpack[ScanKeywords],
) -> Classifier:
    """The suspect model as the detectors see it, loaded in this process.

    Float32 pixels ``[B, C, H, W]`` in [0, 1] go in, logits ``[B, K]`` come out. Its preprocessing
    is what is stated about the model, and else what classifies the clean images best.

    Args:
        model, clean_images, progress, options: see :func:`scan`.

    Raises:
        ModelAuditError: as :func:`scan`. A file that would run code when it is read is refused.
    """
    from modelaudit.suspect import prepare

    with _prepared(model, clean_images, options) as (chosen, loaded):
        return prepare(chosen, progress or (lambda stage, share: None), loaded).classifier


@contextmanager
def _prepared(
    model: Any, clean_images: Any, keywords: Mapping[str, Any]
) -> Iterator[tuple[ScanOptions, LoadedModel | None]]:
    """The options of a scan, and the model if it is in memory; images lie in a folder meanwhile."""
    loaded = None if isinstance(model, str | Path) else _module(model, keywords)
    name = Path(model) if loaded is None else Path(type(model).__name__)
    if isinstance(clean_images, str | Path):
        yield options_of(name, Path(clean_images), keywords), loaded
        return
    with tempfile.TemporaryDirectory(prefix="modelaudit-images-") as folder:
        labels = _write(clean_images, Path(folder))
        if labels and keywords.get("labels"):
            raise UsageError("The clean images have class_names; drop those or labels.")
        stated = {"labels": labels} if labels else {}
        yield options_of(name, Path(folder), {**keywords, **stated}), loaded


def _module(model: Any, keywords: Mapping[str, Any]) -> LoadedModel:
    from torch import nn

    from modelaudit.loaders.module import load_module

    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model is the path of a model or a torch.nn.Module; found {type(model).__name__}."
        )
    for key in ("arch", "num_classes"):
        if keywords.get(key) is not None:
            raise UsageError(f"{key} is for files that hold weights only; drop it for a module.")
    return load_module(model)


def _write(images: Any, folder: Path) -> Path | None:
    from modelaudit.image_tensors import write_folder
    from modelaudit.images import CleanImages

    if not isinstance(images, CleanImages):
        raise ImagesError(
            "clean_images is a folder with one folder of images per class, or "
            f"CleanImages.from_tensors(pixels, labels); found {type(images).__name__}."
        )
    return write_folder(images.pixels, images.labels, images.class_names, folder)


def _as_given(report: Report, images: CleanImages) -> Report:
    """The report without the paths of the files that the images were in for a while."""
    from modelaudit.image_tensors import are_bytes

    notes = () if are_bytes(images.pixels) else (_ROUNDED,)
    described = replace(
        report.images, directory=_MEMORY, warnings=(*report.images.warnings, *notes)
    )
    labels = _MEMORY if images.class_names else report.settings["labels"]
    return replace(report, images=described, settings={**report.settings, "labels": labels})
