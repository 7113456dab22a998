"""What the preflight checks are: one table, from which the documentation is generated too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "warning", "inconclusive", "error"]


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        name: key of the check in ``CHECKS``.
        status: ``ok``; ``note``: worth knowing; ``warning``: read the result with care;
            ``inconclusive``: a scan would prove nothing; ``error``: a scan is impossible.
        message: what was found.
        advice: what to do; empty when there is nothing to do.
    """

    name: str
    status: Status
    message: str
    advice: str = ""


@dataclass(frozen=True)
class CheckDescription:
    """What a check is for.

    Attributes:
        name: key.
        raised_if: the condition.
        meaning: why it matters for the scan.
        advice: what the user should do.
    """

    name: str
    raised_if: str
    meaning: str
    advice: str


CHECKS: tuple[CheckDescription, ...] = (
    CheckDescription(
        "output-count",
        "error: the model has fewer than 2 outputs, more class folders than outputs, or fewer "
        "while folders are mapped by sorted names; warning: a labels file of another length, or "
        "a single class folder; note: folders for a subset of the classes.",
        "Labels must be the model's own output indices; with sorted names a missing folder shifts "
        "every later class.",
        "Name the class folders by output index, or give the outputs' names with --labels.",
    ),
    CheckDescription(
        "outputs-finite",
        "error: an output for a clean image is NaN or infinite.",
        "Nothing can be measured on such a model, or it received pixels in a wrong range.",
        "Check the model file, and give --preprocess or --mean, --std and --input-range.",
    ),
    CheckDescription(
        "clean-accuracy",
        "inconclusive: clean accuracy is below the floor (default 0.5), or not above guessing by "
        "an exact binomial test at 1 %.",
        "A model that does not recognise clean images is fed wrongly or labelled wrongly; a scan "
        "of it says nothing about a backdoor.",
        "Check the images and labels, and try --preprocess NAME, --mean/--std, --input-range "
        "0-255 or --layout NHWC.",
    ),
    CheckDescription(
        "folder-order",
        "inconclusive: another assignment of folders to outputs explains at least half of the "
        "held-out predictions, and at least 10 points more than the given one.",
        "The folders are very likely in another order than the model's outputs.",
        "Rename the folders to the output indices in the message, or give --labels.",
    ),
    CheckDescription(
        "deterministic",
        "the same images give different logits when called twice: warning above 0.1 %, "
        "inconclusive above 5 % of the largest logit.",
        "A random layer (dropout, noise) is active; the search for patterns follows the noise.",
        "Export the model in evaluation mode.",
    ),
    CheckDescription(
        "batch-independent",
        "an image's logits depend on the other images in the batch: warning above 0.1 %, "
        "inconclusive above 5 % of the largest logit, or if a batch of one fails.",
        "BatchNorm exported in training mode does this; patterns are searched for in batches, so "
        "their sizes would depend on one another.",
        "Export the model in evaluation mode (call model.eval() before the export).",
    ),
    CheckDescription(
        "gradients",
        "the gradient of another class's log-probability with respect to the pixels is zero or "
        "not finite: warning for up to half of the images, inconclusive for more.",
        "The search for patterns follows this gradient and cannot move without it; saturated "
        "probabilities, quantisation and rounding remove it.",
        "Give a model without its final softmax, not quantised.",
    ),
    CheckDescription(
        "class-count",
        "warning: the model has fewer than 4 outputs.",
        "Detectors compare the most suspicious class with all others. With one or two others only "
        "a target that is far easier to reach stands out, so that a scan that finds nothing ends "
        "as inconclusive.",
        "Look at the sizes of the patterns; screen inputs with modelaudit screen.",
    ),
    CheckDescription(
        "output-kind",
        "note: the outputs are probabilities, log-probabilities or those of a sigmoid per class.",
        "They are turned into logits; gradients are lost where a probability is rounded to 0 or "
        "1. A final softmax that an ONNX graph shows is removed instead, which loses nothing.",
        "Give a model without its final softmax or sigmoid if you have one.",
    ),
    CheckDescription(
        "few-images",
        "note: a class folder contributes fewer images than were asked for.",
        "With few images a backdoor is easier to miss.",
        "Add images to the class, or ask for fewer with --images-per-class.",
    ),
    CheckDescription(
        "misclassified",
        "warning: a class has no correctly classified image, so misclassified ones are used.",
        "The method assumes that the clean images are recognised.",
        "Check the folder's images and its label.",
    ),
    CheckDescription(
        "resized",
        "note: images had another size than the model's input.",
        "Resizing another way than in training lowers clean accuracy.",
        "Give images of the model's own input size if you have them.",
    ),
)


def describe(name: str) -> CheckDescription:
    """The description of the check ``name``."""
    return next(description for description in CHECKS if description.name == name)


def make_check(name: str, status: Status, message: str, advice: str | None = None) -> Check:
    """A check's outcome; unless it is ``ok``, with the table's advice if none is given."""
    default = "" if status == "ok" else describe(name).advice
    return Check(name, status, message, default if advice is None else advice)
