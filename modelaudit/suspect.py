"""Load a suspect model and find out how it and the clean images fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modelaudit.classifier import Classifier, Preprocessing
from modelaudit.errors import ImagesError, ModelFileError, ModelMismatchError, UsageError
from modelaudit.images import (
    CleanImages,
    ImageFolder,
    choose,
    load_pool,
    native_shape,
    read_labels,
    scan_folder,
)
from modelaudit.loaders import LoadedModel, LoadOptions, load_model
from modelaudit.options import ScanOptions
from modelaudit.preprocess import (
    PreprocessChoice,
    choose_preprocessing,
    resolve,
)

#: Largest difference from the reference runtime, relative to the largest output, that still counts
#: as the same network. float32 in another order of summation differs by about 1e-6 per layer.
MAX_REFERENCE_ERROR = 1e-3

#: Called with a stage's name and the share of it that is done, in [0, 1].
StageProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Suspect:
    """A loaded model, made callable with pixels, and its images.

    Attributes:
        pool: the images that clean accuracy is measured on.
        chosen: the images that the detectors see.
        reference_error: see :class:`modelaudit.report.ModelReport`.
    """

    loaded: LoadedModel
    classifier: Classifier
    choice: PreprocessChoice
    pool: CleanImages
    chosen: CleanImages
    predictions: Tensor
    reference_error: float | None


def prepare(options: ScanOptions, progress: StageProgress) -> Suspect:
    """Load the model and its images and find out how they fit together."""
    device = _device(options.device)
    progress("loading the model", 0.0)
    loaded = load_model(options.model, LoadOptions(options.arch, options.num_classes))
    labels = read_labels(options.labels) if options.labels else None
    folder = scan_folder(options.clean_dir, labels)
    progress("reading the clean images", 0.0)
    pool, choice = _fit_images(loaded, folder, options, device)
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
    error = _reference_error(loaded, choice.preprocessing, chosen, device)
    return Suspect(loaded, classifier, choice, pool, chosen, predictions, error)


def _fit_images(
    loaded: LoadedModel, folder: ImageFolder, options: ScanOptions, device: torch.device
) -> tuple[CleanImages, PreprocessChoice]:
    """The pool in the model's shape, and the preprocessing that fits.

    Where the file does not state its layout, its channels are a guess too, and others are tried.

    Raises:
        UsageError: the user's preprocessing has another number of channels than the model.
        ModelFileError: the model accepts the images with no preprocessing.
        ImagesError: ``--image-size`` contradicts the file, or the images cannot be read.
    """
    given = options.preprocessing
    if given.layout and loaded.layout:  # the file's is judged by its shape, so the user's wins
        loaded = replace(loaded, layout=given.layout)
    channels, size = _stated_shape(loaded)
    own_channels, *own_size = native_shape(folder)
    size = _image_size(options.image_size, size, (own_size[0], own_size[1]))
    guesses = [channels] if channels and loaded.layout else [channels, own_channels, 3, 1]
    failures: list[ModelFileError | UsageError] = []
    for number in dict.fromkeys(filter(None, guesses)):
        try:
            tried = resolve(given, number, loaded.layout)
            pool = load_pool(folder, number, size, options.images_per_class, options.seed)
            choice = choose_preprocessing(loaded.module, pool, tried, device, loaded.num_classes)
        except (ModelFileError, UsageError) as error:
            failures.append(error)
            continue
        return pool, choice
    # What the user gave must fit the model's channels; that it does not fit a guess says nothing.
    of_the_model = (error for error in failures if isinstance(error, ModelFileError))
    raise failures[0] if channels else next(of_the_model, failures[0])


def _stated_shape(loaded: LoadedModel) -> tuple[int | None, tuple[int | None, int | None]]:
    """Channels and (height, width) as far as the file states them."""
    if loaded.input_shape is None:
        return None, (None, None)
    if loaded.layout == "NHWC":
        height, width, channels = loaded.input_shape
    else:
        channels, height, width = loaded.input_shape
    return channels, (height, width)


def _image_size(
    asked: tuple[int, int] | None,
    stated: tuple[int | None, int | None],
    own: tuple[int, int],
) -> tuple[int, int]:
    """The size to give the images: the file's, else the user's, else the images' own.

    Raises:
        ImagesError: the user's contradicts an extent that the file states.
    """
    if asked and any(own not in (None, wish) for own, wish in zip(stated, asked, strict=True)):
        found = "x".join("any" if extent is None else str(extent) for extent in stated)
        fitting = "x".join(str(own or wish) for own, wish in zip(stated, asked, strict=True))
        raise ImagesError(
            f"--image-size {asked[0]}x{asked[1]} contradicts the model file, whose input is "
            f"{found} (height x width). Leave --image-size out or give {fitting}."
        )
    fallback = asked or own
    return stated[0] or fallback[0], stated[1] or fallback[1]


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
        ModelMismatchError: it is larger than ``MAX_REFERENCE_ERROR``.
    """
    if loaded.reference is None:
        return None
    worst = 0.0
    for pixels in images.pixels.split(64):
        x = preprocessing(pixels)
        expected = torch.from_numpy(loaded.reference(x.contiguous().numpy())).double()
        found = loaded.module(x.to(device)).cpu().double()
        same = (found == expected) | (found.isnan() & expected.isnan())
        difference = (found - expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        size = expected.abs().where(expected.isfinite(), 0.0).max().clamp_min(1e-6)
        worst = max(worst, float(difference.where(~same, 0.0).max() / size))
    if worst > MAX_REFERENCE_ERROR:
        raise ModelMismatchError(
            f"The imported {loaded.format} model does not compute what the reference runtime "
            f"computes: outputs on the clean images differ by {worst:.1e} of the largest output "
            f"(at most {MAX_REFERENCE_ERROR:.0e} is accepted). This is a fault of the importer: "
            "please report it; exporting the model with another opset may help."
        )
    return worst


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here. Use --device cpu.")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu or cuda.")
    return torch.device(name)
