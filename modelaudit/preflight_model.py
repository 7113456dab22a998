"""Preflight checks of the model itself."""

from __future__ import annotations

import torch
from torch import Tensor

from modelaudit.checks import Check, Status, make_check
from modelaudit.classifier import Classifier
from modelaudit.errors import no_fault_of_the_model, reason_of
from modelaudit.images import CleanImages
from modelaudit.memory import BatchSize

#: With fewer classes than this, what is known of clean models has to stand in for the others, and
#: about half of the attacks are missed (fixtures/results/few-classes.md).
FEWEST_CLASSES = 4
# Relative to the largest logit: convolution algorithms and TF32 stay below the first; above the
# second, differences are no longer rounding.
_ROUNDING = 1e-3
_DIFFERENT = 5e-2
_PROBES = 8
_GRADIENT_PROBES = 32
_BATCH = 64


def check_outputs_finite(classifier: Classifier, chosen: CleanImages) -> Check:
    """Are all logits of the clean images finite?"""
    logits = classifier.logits(chosen.pixels, BatchSize(_BATCH))
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        message = f"The outputs for {bad} of {len(chosen)} clean images are NaN or infinite."
        return make_check("outputs-finite", "error", message)
    return make_check("outputs-finite", "ok", "All outputs are finite.")


@torch.no_grad()
def check_deterministic(classifier: Classifier, chosen: CleanImages) -> Check:
    """Do the same images give the same logits twice?"""
    x = _spread(chosen.pixels, _PROBES).to(classifier.device)
    difference = _relative_difference(classifier(x), classifier(x))
    return make_check(
        "deterministic",
        _graded(difference),
        f"The same images called twice differ by {difference:.2g} of the largest logit.",
    )


@torch.no_grad()
def check_batch_independent(classifier: Classifier, chosen: CleanImages) -> Check:
    """Does an image give the same logits alone as in a batch?"""
    x = _spread(chosen.pixels, _PROBES).to(classifier.device)
    together = classifier(x)
    try:
        alone = torch.cat([classifier(one) for one in x.split(1)])
    # Whatever the module raises, it does so for a batch of one only: larger ones just worked.
    except Exception as error:
        if no_fault_of_the_model(error):
            raise
        message = f"The model fails on a batch of one image: {reason_of(error)[:200]}"
        return make_check("batch-independent", "inconclusive", message)
    difference = _relative_difference(together, alone)
    return make_check(
        "batch-independent",
        _graded(difference),
        f"Images alone and in a batch of {len(x)} differ by {difference:.2g} of the largest logit.",
    )


def check_gradients(classifier: Classifier, chosen: CleanImages) -> Check:
    """Do pixels have a gradient that a search can follow?

    For each of some images the log-probability of one class that the model does *not* predict is
    differentiated, another class for every image: the predicted class's own log-probability has
    no gradient on a confident model, and a search never starts from it.
    """
    name = "gradients"
    x = _spread(chosen.pixels, _GRADIENT_PROBES)
    offsets = 1 + torch.arange(len(x)) % (classifier.num_classes - 1)
    batch = BatchSize(_GRADIENT_PROBES)

    def norms() -> list[Tensor]:
        parts = zip(x.split(batch.images), offsets.split(batch.images), strict=True)
        return [_gradient_norms(classifier, images, offset) for images, offset in parts]

    try:
        norm = torch.cat(batch.within_memory(norms))
    # A module that detaches, rounds or calls out of torch raises here, each in its own way.
    except Exception as error:
        if no_fault_of_the_model(error):
            raise
        message = f"The model cannot be differentiated: {reason_of(error)[:200]}"
        return make_check(name, "inconclusive", message)
    usable = int((norm.isfinite() & (norm > 1e-12)).sum())
    message = f"{usable} of {len(x)} images have a usable gradient."
    if usable == len(x):
        return make_check(name, "ok", message)
    return make_check(name, "warning" if 2 * usable >= len(x) else "inconclusive", message)


def _gradient_norms(classifier: Classifier, images: Tensor, offsets: Tensor) -> Tensor:
    """Norms ``[n]`` of the gradients of the log-probabilities of other classes than the predicted.

    Args:
        images: ``[n, C, H, W]``.
        offsets: how far each image's class is from the one predicted ``[n]``.
    """
    x = images.to(classifier.device).requires_grad_()
    log_p = classifier(x).log_softmax(1)
    target = (log_p.argmax(1) + offsets.to(x.device)) % classifier.num_classes
    (gradient,) = torch.autograd.grad(log_p.gather(1, target[:, None]).sum(), x)
    return gradient.flatten(1).double().norm(dim=1).cpu()


def check_class_count(classifier: Classifier) -> Check:
    """Are there enough other classes to compare one with?"""
    k = classifier.num_classes
    if k < FEWEST_CLASSES:
        message = f"The model has {k} classes, few to compare with each other."
        return make_check("class-count", "warning", message)
    return make_check("class-count", "ok", f"{k} classes.")


def check_output_kind(classifier: Classifier) -> Check:
    """Are the outputs logits?"""
    if classifier.without_softmax:
        return make_check(
            "output-kind",
            "note",
            "The model ends in a softmax and returns probabilities; the softmax was removed for "
            "the search, which follows the logits before it.",
            "",
        )
    if classifier.outputs == "logits":
        return make_check("output-kind", "ok", "The outputs are logits.")
    if classifier.outputs == "sigmoid":
        return make_check(
            "output-kind",
            "note",
            "The outputs lie in [0, 1] but do not sum to 1, as those of a sigmoid per class; they "
            "are turned into logits by log(p / (1 - p)).",
            "Give a model without its final sigmoid if you have one.",
        )
    message = f"The outputs are {classifier.outputs}; they are turned into logits."
    return make_check("output-kind", "note", message)


def _spread(pixels: Tensor, count: int) -> Tensor:
    """At most ``count`` images, evenly spread, so that several classes are among them."""
    return pixels[torch.linspace(0, len(pixels) - 1, min(count, len(pixels))).long()]


def _relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest magnitude."""
    scale = torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-12)
    return float((a - b).abs().max() / scale)


def _graded(difference: float) -> Status:
    if difference <= _ROUNDING:
        return "ok"
    return "warning" if difference <= _DIFFERENT else "inconclusive"
