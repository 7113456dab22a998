"""Preflight checks of the clean images against the model's predictions."""

from __future__ import annotations

import numpy as np
import torch
from scipy import special
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modelaudit.checks import Check, make_check
from modelaudit.images import CleanImages

# A model that guesses passes the accuracy check with this probability at most.
_GUESSING_LEVEL = 0.01
# The folder order is doubted when another one explains this share of held-out predictions ...
_REORDERED_SHARE = 0.5
# ... and this much more than the given one; a confusable pair of classes stays below it.
_REORDERED_GAIN = 0.1
_MOST_LISTED = 12


def check_output_count(pool: CleanImages, num_classes: int) -> Check:
    """Do the class folders fit the number of outputs?"""
    name = "output-count"
    present = sorted(pool.counts())
    if num_classes < 2:
        return make_check(
            name,
            "error",
            f"The model has {num_classes} output; one output per class is expected.",
            "A two-class model with a single sigmoid output must be exported with two outputs.",
        )
    if len(present) > num_classes or present[-1] >= num_classes:
        return make_check(
            name,
            "error",
            f"There are {len(present)} class folders up to index {present[-1]}, but the model has "
            f"{num_classes} outputs (0 .. {num_classes - 1}).",
        )
    if pool.mapping == "sorted names" and len(present) < num_classes:
        return make_check(
            name,
            "error",
            f"There are {len(present)} class folders with names for {num_classes} outputs, so it "
            "is unknown which outputs they stand for.",
        )
    return _check_coverage(pool, present, num_classes)


def check_clean_accuracy(confusion: Tensor, floor: float) -> Check:
    """Does the model recognise the clean images? ``confusion`` is ``[K, K]``.

    Guessing means always naming the most frequent class, or any class where only one is present.
    """
    total = int(confusion.sum())
    correct = int(confusion.diagonal().sum())
    accuracy = correct / total
    per_class = confusion.sum(1)
    present = int((per_class > 0).sum())
    guess = float(per_class.max()) / total if present > 1 else 1 / len(confusion)
    p_value = float(special.bdtrc(correct - 1, total, guess))  # of as many or more by guessing
    found = f"Clean accuracy is {accuracy:.1%} ({correct} of {total} images)"
    if accuracy < floor:
        message = f"{found}, below the floor of {floor:.0%}."
        return make_check("clean-accuracy", "inconclusive", message)
    if p_value >= _GUESSING_LEVEL:
        message = f"{found}, not clearly above guessing ({guess:.1%}; p = {p_value:.2g})."
        return make_check(
            "clean-accuracy",
            "inconclusive",
            message,
            "Give more clean images, of more classes; otherwise check the preprocessing.",
        )
    return make_check("clean-accuracy", "ok", f"{found}.")


def check_folder_order(pool: CleanImages, predictions: Tensor, num_classes: int) -> Check:
    """Would another assignment of folders to outputs fit the predictions much better?

    The best assignment is fitted on one half of every class's images and counted on the other
    half, both ways, so that chance agreement with few images does not count for it.
    """
    name = "folder-order"
    first, second = _halves(pool.labels, predictions.cpu(), num_classes)
    explained = (_explained(first, second) + _explained(second, first)) / len(pool)
    both = first + second
    accuracy = np.trace(both) / len(pool)
    if explained < _REORDERED_SHARE or explained - accuracy < _REORDERED_GAIN:
        return make_check(name, "ok", "No other order of the class folders fits better.")
    rows, columns = _assign(both)
    moved = [
        f"{pool.name(row)!r} -> output {column}"
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if row != column
    ]
    more = f" and {len(moved) - _MOST_LISTED} more" if len(moved) > _MOST_LISTED else ""
    return make_check(
        name,
        "inconclusive",
        f"The class folders are probably in the wrong order: the model agrees with them on "
        f"{accuracy:.0%} of the images and with another order on {explained:.0%}. Likely mapping "
        f"of folders that move: {', '.join(moved[:_MOST_LISTED])}{more}.",
    )


def check_few_images(chosen: CleanImages, images_per_class: int) -> Check:
    """Does every class contribute as many images as were asked for?"""
    short = [
        f"{chosen.name(index)!r} ({count})"
        for index, count in chosen.counts().items()
        if count < images_per_class
    ]
    if not short:
        return make_check("few-images", "ok", f"{images_per_class} images per class.")
    more = f" and {len(short) - _MOST_LISTED} more" if len(short) > _MOST_LISTED else ""
    return make_check(
        "few-images",
        "note",
        f"Fewer than {images_per_class} correctly classified images: "
        f"{', '.join(short[:_MOST_LISTED])}{more}.",
    )


def check_misclassified(pool: CleanImages, predictions: Tensor) -> Check:
    """Is there a class without any correctly classified image?"""
    correct = predictions.cpu() == pool.labels
    recognised = set(pool.labels[correct].tolist())
    lost = [repr(pool.name(index)) for index in pool.counts() if index not in recognised]
    if not lost:
        return make_check("misclassified", "ok", "Every class has correctly classified images.")
    more = f" and {len(lost) - _MOST_LISTED} more" if len(lost) > _MOST_LISTED else ""
    return make_check(
        "misclassified",
        "warning",
        f"No image is classified correctly of: {', '.join(lost[:_MOST_LISTED])}{more}; "
        "misclassified ones are used.",
    )


def check_resized(chosen: CleanImages) -> Check:
    """Did the images have the model's input size?"""
    height, width = chosen.pixels.shape[2:]
    if not chosen.resized:
        return make_check("resized", "ok", f"All images are {height} x {width}.")
    return make_check(
        "resized",
        "note",
        f"{chosen.resized} of {len(chosen)} images were resized to {height} x {width}.",
    )


def _check_coverage(pool: CleanImages, present: list[int], num_classes: int) -> Check:
    """Folders that fit the outputs: do they cover all of them, under the right names?"""
    name = "output-count"
    if pool.class_names and len(pool.class_names) != num_classes:
        return make_check(
            name,
            "warning",
            f"The labels name {len(pool.class_names)} outputs, but the model has {num_classes}; "
            "the names may be shifted.",
            "Give a labels file with one name per output.",
        )
    if len(present) == 1:
        return make_check(
            name,
            "warning",
            f"Only class {pool.name(present[0])!r} has images, so it cannot be tested as a target, "
            "and a backdoor that works on other classes may be missed.",
            "Add images of more classes.",
        )
    if len(present) < num_classes:
        return make_check(
            name,
            "note",
            f"{len(present)} of {num_classes} classes have images; all outputs are tested as "
            "targets, with the present classes as sources.",
            "Add images of the other classes if you have them.",
        )
    return make_check(name, "ok", f"{num_classes} class folders for {num_classes} outputs.")


def _halves(labels: Tensor, predictions: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Confusion counts ``[K, K]`` of every other image of each class, and of the rest."""
    counts = np.zeros((2, k, k), dtype=np.int64)
    for label in torch.unique(labels).tolist():
        for place, predicted in enumerate(predictions[labels == label].tolist()):
            counts[place % 2, label, predicted] += 1
    return counts[0], counts[1]


def _assign(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The present classes and the distinct outputs that explain most of their predictions.

    Ties go to the given order: the diagonal is worth a little more.
    """
    rows = np.flatnonzero(confusion.sum(1))
    worth = confusion[rows].astype(np.float64)
    worth[np.arange(len(rows)), rows] += 0.5 / len(confusion)
    found, columns = linear_sum_assignment(worth, maximize=True)
    return rows[found], columns


def _explained(fit: np.ndarray, held_out: np.ndarray) -> int:
    """How many held-out predictions the assignment fitted on the other half explains."""
    rows, columns = _assign(fit)
    return int(held_out[rows, columns].sum())
