"""Is a scan of this model with these images meaningful at all?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelaudit.checks import CHECKS, Check, CheckDescription, Status
from modelaudit.classifier import Classifier
from modelaudit.errors import ImagesError, ModelFileError
from modelaudit.images import CleanImages
from modelaudit.preflight_images import (
    check_clean_accuracy,
    check_few_images,
    check_folder_order,
    check_misclassified,
    check_output_count,
    check_resized,
)
from modelaudit.preflight_model import (
    check_batch_independent,
    check_class_count,
    check_deterministic,
    check_gradients,
    check_output_kind,
    check_outputs_finite,
)

__all__ = [
    "CHECKS",
    "Check",
    "CheckDescription",
    "PreflightReport",
    "confusion_matrix",
    "run_preflight",
]

_FROM_BETTER_TO_WORSE: tuple[Status, ...] = ("ok", "note", "warning", "inconclusive", "error")


@dataclass(frozen=True)
class PreflightReport:
    """All checks of one model with its images.

    Attributes:
        checks: in the order in which they ran; they end at the first error.
        clean_accuracy: share of the pool classified correctly, 0 to 1; ``None`` after an error.
        confusion: int64 ``[K, K]`` counts, row: class of the folder, column: the model's class;
            ``None`` after an error.
    """

    checks: tuple[Check, ...]
    clean_accuracy: float | None = None
    confusion: Tensor | None = None

    @property
    def worst(self) -> Status:
        """The most serious status among the checks."""
        return max((check.status for check in self.checks), key=_FROM_BETTER_TO_WORSE.index)

    def by_status(self, status: Status) -> tuple[Check, ...]:
        """The checks that have the status."""
        return tuple(check for check in self.checks if check.status == status)

    def raise_for_errors(self) -> None:
        """Turn an ``error`` check into an exception.

        Raises:
            ModelFileError: the model's outputs cannot be used.
            ImagesError: the class folders do not fit the model.
        """
        for check in self.by_status("error"):
            kind = ModelFileError if check.name == "outputs-finite" else ImagesError
            raise kind(f"{check.message} {check.advice}".strip())


def run_preflight(
    classifier: Classifier,
    pool: CleanImages,
    chosen: CleanImages,
    images_per_class: int,
    accuracy_floor: float = 0.5,
    predictions: Tensor | None = None,
) -> PreflightReport:
    """Run all checks; none of them raises for a bad model or bad images.

    Args:
        classifier: the suspect model.
        pool: the images that clean accuracy is measured on.
        chosen: the images that the scan uses.
        images_per_class: how many were asked for.
        accuracy_floor: clean accuracy below which a scan is inconclusive, 0 to 1.
        predictions: int64 ``[n]``, the model's class for every image of the pool, if known.
    """
    checks = [check_output_count(pool, classifier.num_classes)]
    if checks[-1].status != "error":
        checks.append(check_outputs_finite(classifier, chosen))
    if checks[-1].status == "error":
        return PreflightReport(tuple(checks))
    if predictions is None:
        predictions = classifier.predict(pool.pixels)
    confusion = confusion_matrix(pool.labels, predictions, classifier.num_classes)
    checks += [
        check_clean_accuracy(confusion, accuracy_floor),
        check_folder_order(pool, predictions, classifier.num_classes),
        check_deterministic(classifier, chosen),
        check_batch_independent(classifier, chosen),
        check_gradients(classifier, chosen),
        check_class_count(classifier),
        check_output_kind(classifier),
        check_few_images(chosen, images_per_class),
        check_misclassified(pool, predictions),
        check_resized(chosen),
    ]
    accuracy = float(confusion.diagonal().sum()) / len(pool)
    return PreflightReport(tuple(checks), accuracy, confusion)


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Counts ``[K, K]`` (int64), row: label, column: prediction."""
    cells = labels.cpu() * num_classes + predictions.cpu()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)
