"""One scan: load, choose images and preprocessing, preflight, detect, decide, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectors import registry
from detectors.types import Detector, DetectorInput, DetectorResult
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
from modelaudit.loaders import LoadedModel, LoadOptions, load_model, sha256_of
from modelaudit.preflight import PreflightReport, run_preflight
from modelaudit.preprocess import (
    PreprocessChoice,
    PreprocessOptions,
    choose_preprocessing,
    resolve,
)
from modelaudit.report import Report
from modelaudit.reporting import environment_of, make_report
from modelaudit.verdict import decide

#: Largest difference from the reference runtime, relative to the largest output, that still counts
#: as the same network. float32 in another order of summation differs by about 1e-6 per layer.
MAX_REFERENCE_ERROR = 1e-3

#: Called with a stage's name and the share of it that is done, in [0, 1].
StageProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class ScanOptions:
    """What to scan and how; the command line's options under the same names.

    Attributes:
        model: path of the suspect model.
        clean_dir: folder with one folder of clean images per class.
        labels: file with the class names in output order.
        arch, num_classes: for weights without a graph; see :class:`LoadOptions`.
        preprocessing: what the user says about it; nothing tries the usual ones.
        image_size: ``(H, W)`` in pixels, where the model file does not state it.
        images_per_class: N, clean images per class.
        detectors: registered names; empty means the default set.
        settings: detector -> setting -> value as text.
        alpha: the largest acceptable probability of refusing a clean model, in (0, 1).
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of every random choice.
        accuracy_floor: clean accuracy below which the verdict is ``inconclusive``.
    """

    model: Path
    clean_dir: Path
    labels: Path | None = None
    arch: str | None = None
    num_classes: int | None = None
    preprocessing: PreprocessOptions = field(default_factory=PreprocessOptions)
    image_size: tuple[int, int] | None = None
    images_per_class: int = 8
    detectors: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    alpha: float = 0.05
    device: str = "auto"
    seed: int = 0
    accuracy_floor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha must lie between 0 and 1, not {self.alpha}.")
        if self.images_per_class < 1:
            raise UsageError(f"At least 1 image per class is needed, not {self.images_per_class}.")


@dataclass(frozen=True)
class ScanResult:
    """A scan's report, and the detectors' results with their patterns."""

    report: Report
    results: tuple[DetectorResult, ...]


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


def scan(options: ScanOptions, progress: StageProgress | None = None) -> ScanResult:
    """Scan a suspect model.

    Raises:
        ModelAuditError: the model, the images or an option cannot be used; never for what was
            found.
    """
    start = time.perf_counter()
    report_stage = progress or (lambda stage, share: None)
    detectors = build_detectors(options.detectors, options.settings)
    suspect = prepare(options, report_stage)
    preflight = run_preflight(
        suspect.classifier,
        suspect.pool,
        suspect.chosen,
        options.images_per_class,
        options.accuracy_floor,
        suspect.predictions,
    )
    preflight.raise_for_errors()
    results = _detect(detectors, suspect, preflight, options, report_stage)
    decision = decide(results, preflight.checks, options.alpha)
    report = make_report(
        options, suspect, preflight, results, decision, time.perf_counter() - start
    )
    return ScanResult(report, results)


def build_detectors(
    names: Sequence[str], settings: Mapping[str, Mapping[str, str]]
) -> dict[str, Detector]:
    """The detectors to run, with the user's settings applied.

    Raises:
        UsageError: unknown detector or setting, or a setting of a detector that does not run.
    """
    names = tuple(dict.fromkeys(names)) or registry.default_names()
    for name in settings:
        if name not in names:
            raise UsageError(
                f"--set names the detector {name!r}, which does not run in this scan; running: "
                f"{', '.join(names)}. Add --detector {name}, or see `modelaudit detectors`."
            )
    try:
        return {name: registry.build(name, settings.get(name, {})) for name in names}
    except ValueError as error:
        raise UsageError(f"{error}. See `modelaudit detectors`.") from error


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
    error = _reference_error(loaded, loaded.module, choice.preprocessing, chosen, device)
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
    module: nn.Module,
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
        found = module(x.to(device)).cpu().double()
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


def _detect(
    detectors: Mapping[str, Detector],
    suspect: Suspect,
    preflight: PreflightReport,
    options: ScanOptions,
    progress: StageProgress,
) -> tuple[DetectorResult, ...]:
    """Run the detectors, unless preflight says that they would prove nothing."""
    if preflight.worst == "inconclusive":
        return ()
    results = []
    for name, detector in detectors.items():
        data = DetectorInput(
            suspect.classifier,
            suspect.chosen.pixels,
            suspect.chosen.labels,
            torch.Generator().manual_seed(options.seed),
            lambda share, name=name: progress(name, share),  # type: ignore[misc]
        )
        results.append(detector(data))
    return tuple(results)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here. Use --device cpu.")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu or cuda.")
    return torch.device(name)


def describe(options: ScanOptions) -> dict[str, Any]:
    """The options as plain values, for the report."""
    return {
        "detectors": list(options.detectors or registry.default_names()),
        "settings": {name: dict(values) for name, values in options.settings.items()},
        "alpha": options.alpha,
        "images_per_class": options.images_per_class,
        "accuracy_floor": options.accuracy_floor,
        "labels": str(options.labels) if options.labels else None,
        "arch": options.arch,
        "num_classes": options.num_classes,
        "image_size": list(options.image_size) if options.image_size else None,
    }


__all__ = [
    "ScanOptions",
    "ScanResult",
    "Suspect",
    "build_detectors",
    "describe",
    "environment_of",
    "prepare",
    "scan",
    "sha256_of",
]
