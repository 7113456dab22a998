"""Load a suspect model and find out how it and the clean images fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modelaudit.classifier import Classifier
from modelaudit.device import device_of
from modelaudit.errors import ModelMismatchError, first_line
from modelaudit.fitting import Fit, fit_images
from modelaudit.images import CleanImages, choose
from modelaudit.loaders import LoadedModel
from modelaudit.loading import load_with_config
from modelaudit.model_config import ModelConfig
from modelaudit.options import ScanOptions
from modelaudit.preprocess import PreprocessChoice
from modelaudit.preprocessing import Preprocessing
from modelaudit.stages import StageProgress


@dataclass(frozen=True)
class Suspect:
    """A loaded model, made callable with pixels, and its images.

    Attributes:
        fit: the images that clean accuracy is measured on, and the preprocessing.
        chosen: the images that the detectors see.
        reference_error: see :class:`modelaudit.report.ModelReport`.
    """

    loaded: LoadedModel
    classifier: Classifier
    fit: Fit
    chosen: CleanImages
    predictions: Tensor
    reference_error: float | None

    @property
    def choice(self) -> PreprocessChoice:
        return self.fit.choice

    @property
    def pool(self) -> CleanImages:
        return self.fit.pool


def prepare(
    options: ScanOptions, progress: StageProgress, loaded: LoadedModel | None = None
) -> Suspect:
    """Load the model and its images and find out how they fit together.

    Args:
        loaded: the model, where it is in memory and ``options.model`` only names it.
    """
    device, note = device_of(options.device)
    progress("loading the model", 0.0)
    config = ModelConfig()
    if loaded is None:
        loaded, config = load_with_config(options.model, options.arch, options.num_classes)
    progress("reading the clean images", 0.0)
    fit = fit_images(
        loaded, config, options, device, lambda share: progress("finding the preprocessing", share)
    )
    if note:
        fit = replace(fit, notes=(*fit.notes, note))
    pool, choice = fit.pool, fit.choice
    module, outputs, without_softmax = loaded.module, choice.outputs, False
    if outputs == "probabilities" and loaded.logits_module is not None:
        module, outputs, without_softmax = loaded.logits_module, "logits", True
    _, channels, height, width = pool.pixels.shape
    classifier = Classifier(
        module,
        choice.num_classes,
        (channels, height, width),
        choice.preprocessing,
        outputs,
        device,
        without_softmax,
    )
    predictions = classifier.predict(pool.pixels)
    chosen = choose(pool, predictions, options.images_per_class, options.seed)
    progress("comparing with the reference runtime", 0.0)
    try:
        error = _reference_error(loaded, choice.preprocessing, chosen, device)
    except ReferenceUnavailable as problem:
        error, fit = None, replace(fit, notes=(*fit.notes, str(problem)))
    return Suspect(loaded, classifier, fit, chosen, predictions, error)


@torch.no_grad()
def _reference_error(
    loaded: LoadedModel,
    preprocessing: Preprocessing,
    images: CleanImages,
    device: torch.device,
) -> float | None:
    """Largest difference from the reference runtime on the clean images, relative.

    Outputs that are NaN or infinite on both sides agree; preflight judges them.

    Raises:
        ModelMismatchError: it is larger than the file's ``reference_tolerance``.
        ReferenceUnavailable: the reference runtime cannot run the file.
    """
    if loaded.reference is None:
        return None
    worst = 0.0
    for pixels in images.pixels.split(64):
        x = preprocessing(pixels)
        expected = torch.from_numpy(_reference_outputs(loaded.reference, x)).double()
        found = loaded.module(x.to(device)).cpu().double()
        same = (found == expected) | (found.isnan() & expected.isnan())
        difference = (found - expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        size = expected.abs().where(expected.isfinite(), 0.0).max().clamp_min(1e-6)
        worst = max(worst, float(difference.where(~same, 0.0).max() / size))
    if worst > loaded.reference_tolerance:
        raise ModelMismatchError(
            f"The imported {loaded.format} model does not compute what the reference runtime "
            f"computes: outputs on the clean images differ by {worst:.1e} of the largest output "
            f"(at most {loaded.reference_tolerance:.0e} is accepted). This is a fault of the "
            "importer: please report it; exporting the model with another opset may help."
        )
    return worst


class ReferenceUnavailable(Exception):
    """The reference runtime cannot run a file; the import stands alone then."""


def _reference_outputs(reference: Callable[[np.ndarray], np.ndarray], x: Tensor) -> np.ndarray:
    try:
        return reference(x.contiguous().numpy())
    # It raises types of its own, for what it does not know as for what is wrong.
    except Exception as error:
        raise ReferenceUnavailable(
            "The reference runtime does not run this file, so the import was not compared with it: "
            f"{first_line(error)}"
        ) from error
