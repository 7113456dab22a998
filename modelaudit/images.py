"""Clean images: read a seeded pool per class, then choose the ones that a scan uses."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ImagesError
from modelaudit.image_files import decode_image, image_shape, read_image
from modelaudit.image_folder import (
    ClassFolder,
    FolderMapping,
    ImageFolder,
    class_name,
    scan_folder,
)
from modelaudit.image_tensors import as_labels, as_pixels
from modelaudit.labels import read_labels

__all__ = [
    "ClassFolder",
    "CleanImages",
    "ImageFolder",
    "choose",
    "class_name",
    "load_pool",
    "native_shape",
    "read_image",
    "read_labels",
    "scan_folder",
]

# The pool holds up to this many candidates for every image that the scan uses ...
_CANDIDATES = 4
# ... but no more than fit here, unless the images in use alone are more (1,000 classes of
# 224x224 RGB would otherwise take 10 GB).
_POOL_BYTES = 2**30


@dataclass(frozen=True)
class CleanImages:
    """Images with labels, ready for the model.

    Attributes:
        pixels: float32 ``[n, C, H, W]`` in [0, 1].
        labels: int64 ``[n]``, class indices.
        files: where each image came from; only a name for one that is in memory.
        digests: hex SHA-256 of each file's bytes; for an image in memory, of its pixels.
        was_resized: whether each image had another size on disk.
        class_names: names of the outputs 0, 1, ... as far as they are known.
        mapping: how folders became class indices.
        warnings: sentences for the report.
    """

    pixels: Tensor
    labels: Tensor
    files: tuple[Path, ...]
    digests: tuple[str, ...]
    was_resized: tuple[bool, ...]
    class_names: tuple[str, ...] = ()
    mapping: FolderMapping = "numbers"
    warnings: tuple[str, ...] = field(default=())

    @classmethod
    def from_tensors(cls, pixels: Any, labels: Any, class_names: Sequence[str] = ()) -> CleanImages:
        """Images that are in memory.

        Args:
            pixels: tensor or array ``[n, C, H, W]``, C = 1 (grey), 3 (RGB) or 4 (RGBA): floats in
                [0, 1] or uint8 in 0 .. 255, not normalised.
            labels: class indices ``[n]``, whole numbers.
            class_names: of the outputs 0, 1, ... in order, if they are known.

        Raises:
            ImagesError: another shape, type or range.
        """
        names = tuple(class_names)
        checked = as_pixels(pixels)
        classes = as_labels(labels, len(checked), names)
        return cls(
            pixels=checked,
            labels=classes,
            files=tuple(Path(f"{c}/{i}") for i, c in enumerate(classes.tolist())),
            digests=tuple(hashlib.sha256(one.contiguous().numpy()).hexdigest() for one in checked),
            was_resized=(False,) * len(checked),
            class_names=names,
        )

    def __len__(self) -> int:
        return len(self.files)

    @property
    def resized(self) -> int:
        """How many images had another size on disk."""
        return sum(self.was_resized)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over ``class index:SHA-256 of the file`` of every image, in order."""
        lines = (f"{c}:{d}\n" for c, d in zip(self.labels.tolist(), self.digests, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def counts(self) -> dict[int, int]:
        """Number of images of every class that is present, by class index."""
        return dict(sorted(Counter(self.labels.tolist()).items()))

    def name(self, index: int) -> str:
        """Name of the class ``index``."""
        return class_name(self.class_names, index)


@dataclass(frozen=True)
class _Decoded:
    pixels: Tensor
    label: int
    file: Path
    digest: str
    resized: bool


def native_shape(folder: ImageFolder) -> tuple[int, int, int]:
    """``(C, H, W)`` of the first readable image: the size to use where the model states none.

    Raises:
        ImagesError: no image is readable.
    """
    for one in folder.classes:
        for file in one.files:
            try:
                return image_shape(file)
            except ImagesError:
                continue
    raise ImagesError(f"No image in {folder.directory} can be read.")


def load_pool(
    folder: ImageFolder, channels: int, size: tuple[int, int], per_class: int, seed: int
) -> CleanImages:
    """Read up to ``4 * per_class`` seeded candidates of every class.

    A scan prefers images that the model classifies correctly, so it needs more candidates than
    images; clean accuracy is measured on all of them. A class's candidates depend on the seed, the
    class and its file names only. (Where four times as many would take more than 1 GiB, there are
    fewer, the first ones of the same order.)

    Args:
        folder: from ``scan_folder``.
        channels: 1, 3 or 4.
        size: ``(H, W)`` in pixels.
        per_class: images per class that the scan will use, at least 1.
        seed: of the choice.

    Raises:
        ImagesError: ``per_class`` is not positive, or a class has no readable image.
    """
    if per_class < 1:
        raise ImagesError(f"At least 1 image per class is needed, not {per_class}.")
    bytes_per_candidate = len(folder.classes) * channels * size[0] * size[1] * 4
    affordable = max(per_class, _POOL_BYTES // bytes_per_candidate)
    wanted = min(_CANDIDATES * per_class, affordable)
    decoded: list[_Decoded] = []
    warnings = list(folder.warnings)
    for one in folder.classes:
        readable, failures = _read_class(one, channels, size, wanted, seed)
        warnings.extend(failures)
        if not readable:
            raise ImagesError(
                f"No image of class {one.name!r} (folder {one.folder!r} in {folder.directory}) can "
                f"be read. First problem: {failures[0]}"
            )
        decoded.extend(readable)
    return CleanImages(
        pixels=torch.stack([d.pixels for d in decoded]).float().div_(255.0),
        labels=torch.tensor([d.label for d in decoded], dtype=torch.int64),
        files=tuple(d.file for d in decoded),
        digests=tuple(d.digest for d in decoded),
        was_resized=tuple(d.resized for d in decoded),
        class_names=folder.class_names,
        mapping=folder.mapping,
        warnings=tuple(warnings),
    )


def choose(pool: CleanImages, predictions: Tensor, per_class: int, seed: int) -> CleanImages:
    """Up to ``per_class`` images of every class, correctly classified ones only.

    The method (L-RED) assumes that the clean images are classified correctly, so a class with
    fewer correct images than asked for contributes just those. A class without any contributes
    misclassified ones; the preflight check ``misclassified`` warns of it.

    Args:
        pool: from ``load_pool``.
        predictions: int64 ``[n]``, the model's class for every image of the pool.
        per_class: images per class, at least 1.
        seed: of the choice.
    """
    correct = (predictions.cpu() == pool.labels).tolist()
    picked: list[int] = []
    for index in pool.counts():
        ranked = sorted(
            (_rank(seed, index, pool.files[i]), i)
            for i, label in enumerate(pool.labels.tolist())
            if label == index
        )
        members = [i for _, i in ranked]
        right = [i for i in members if correct[i]]
        picked.extend((right or members)[:per_class])
    return select(pool, picked)


def select(images: CleanImages, rows: Sequence[int]) -> CleanImages:
    """These images only, in this order."""
    where = torch.tensor(rows, dtype=torch.int64)
    return replace(
        images,
        pixels=images.pixels[where],
        labels=images.labels[where],
        files=tuple(images.files[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        was_resized=tuple(images.was_resized[i] for i in rows),
    )


def _read_class(
    one: ClassFolder, channels: int, size: tuple[int, int], wanted: int, seed: int
) -> tuple[list[_Decoded], list[str]]:
    """The first ``wanted`` readable images of a class in seeded order, and what failed."""
    readable: list[_Decoded] = []
    failures: list[str] = []
    for file in sorted(one.files, key=lambda file: _rank(seed, one.index, file)):
        if len(readable) == wanted:
            break
        try:
            data = file.read_bytes()
            pixels, resized = decode_image(data, channels, size, str(file))
        except OSError as error:
            failures.append(f"{file} is skipped: {error.strerror or error}")
        except ImagesError as error:
            failures.append(f"{error} (skipped)")
        else:
            digest = hashlib.sha256(data).hexdigest()
            readable.append(_Decoded(pixels, one.index, file, digest, resized))
    return readable, failures


def _rank(seed: int, index: int, file: Path) -> str:
    """A seeded random order by file name: no other file and no other class changes it."""
    return hashlib.sha256(
        f"{seed}:{index}:{file.name}".encode(errors="surrogateescape")
    ).hexdigest()
