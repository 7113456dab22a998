"""The images that a user gives a scan beside the clean ones: suspect inputs and training images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from detectors.examinations import Labelled
from modelaudit.images import load_pool, scan_folder
from modelaudit.input_files import list_inputs, read_inputs
from modelaudit.options import ScanOptions
from modelaudit.suspect import Suspect

# Training images per class that are looked at, at most; a pool holds four candidates for each.
_TRAIN_PER_CLASS = 250
# ... but no more than fit here: 100 classes of 3x224x224 would take 60 GB.
_TRAIN_BYTES = 2**32
_MOST_SUSPECTS = 1000
_MOST_LISTED = 5


@dataclass(frozen=True)
class Given:
    """What there is of them, in the model's shape.

    Attributes:
        notes: sentences on what was left out; name of the input -> notes.
    """

    suspects: Tensor | None
    train: Labelled | None
    notes: dict[str, tuple[str, ...]]


def read_given(options: ScanOptions, suspect: Suspect) -> Given:
    """Read them.

    Raises:
        ImagesError: a folder holds no images that fit the model.
    """
    suspects, about_suspects = _suspects(options, suspect)
    train, about_train = _train(options, suspect)
    return Given(suspects, train, {"suspects": about_suspects, "train": about_train})


def _suspects(options: ScanOptions, suspect: Suspect) -> tuple[Tensor | None, tuple[str, ...]]:
    if options.suspect_dir is None:
        return None, ()
    files = list_inputs(options.suspect_dir)
    images = read_inputs(files[:_MOST_SUSPECTS], suspect.classifier.input_shape)
    notes = list(images.failures.values())[:_MOST_LISTED]
    if len(images.failures) > _MOST_LISTED:
        notes.append(f"{len(images.failures)} suspect inputs cannot be read")
    if len(files) > _MOST_SUSPECTS:
        notes.append(
            f"the first {_MOST_SUSPECTS} of {len(files)} suspect inputs were judged; "
            "`modelaudit screen` judges all"
        )
    return (images.pixels if len(images.files) else None), tuple(notes)


def _train(options: ScanOptions, suspect: Suspect) -> tuple[Labelled | None, tuple[str, ...]]:
    if options.train_dir is None:
        return None, ()
    folder = scan_folder(options.train_dir, suspect.pool.class_names or None)
    channels, height, width = suspect.classifier.input_shape
    affordable = _TRAIN_BYTES // (len(folder.classes) * channels * height * width * 4)
    per_class = max(1, min(_TRAIN_PER_CLASS, affordable))
    pool = load_pool(folder, channels, (height, width), per_class, options.seed)
    found = sum(len(one.files) for one in folder.classes)
    notes = list(pool.warnings)[:_MOST_LISTED]
    if len(pool) < found:
        notes.append(f"{len(pool)} of {found} training images were looked at")
    names = tuple(file.relative_to(options.train_dir).as_posix() for file in pool.files)
    return Labelled(pool.pixels, pool.labels, names), tuple(notes)
