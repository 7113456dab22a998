"""How a model and the clean images fit together: labels, shape and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from modelaudit.errors import ImagesError, ModelFileError, UsageError
from modelaudit.images import (
    CleanImages,
    ImageFolder,
    load_pool,
    native_shape,
    read_labels,
    scan_folder,
)
from modelaudit.loaders import LoadedModel
from modelaudit.loaders.types import StatedFacts
from modelaudit.model_config import ModelConfig
from modelaudit.options import ScanOptions
from modelaudit.preprocess import PreprocessChoice, choose_preprocessing, narrowed
from modelaudit.preprocess_compare import with_others
from modelaudit.stated import COMMAND_LINE, Places, Resolution, places_of, sources_of


@dataclass(frozen=True)
class Fit:
    """A model with its clean images.

    Attributes:
        pool: the images that clean accuracy is measured on, in the model's shape.
        choice: how their pixels become the model's input.
        sources: name of a value (``labels``, ``mean`` ...) -> where it comes from, as
            :mod:`modelaudit.stated` calls the places.
        notes: sentences for the report.
    """

    pool: CleanImages
    choice: PreprocessChoice
    sources: Mapping[str, str]
    notes: tuple[str, ...]


def fit_images(
    loaded: LoadedModel,
    config: ModelConfig,
    options: ScanOptions,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """The pool in the model's shape, and the preprocessing that is stated or fits best.

    ``progress`` is called with the share of the preprocessings that are tried.

    Raises:
        UsageError: a person's labels or preprocessing do not fit the model.
        ModelFileError: the model accepts the images with no preprocessing.
        ImagesError: a person's image size contradicts the file, or the images cannot be read.
    """
    places = places_of(loaded, (_facts(options), config.facts()))
    folder, places, notes = _class_folders(options, places)
    pool, choice, resolution = _search(loaded, places, folder, options, config, device, progress)
    labels = resolution.facts.labels
    if labels and len(labels) != choice.num_classes:  # the file leaves K open; now it is known
        known = replace(loaded, num_classes=choice.num_classes)
        return fit_images(known, config, options, device, progress)
    sources = sources_of(resolution)
    choice, doubts = with_others(choice, loaded, pool, sources, options.accuracy_floor, device)
    return Fit(pool, choice, sources, (*resolution.notes, *notes, *doubts))


def _facts(options: ScanOptions) -> StatedFacts:
    """What the command line states."""
    labels = read_labels(options.labels) if options.labels else None
    stated = options.preprocessing.facts(COMMAND_LINE)
    return replace(stated, labels=labels, image_size=options.image_size)


def _class_folders(options: ScanOptions, places: Places) -> tuple[ImageFolder, Places, list[str]]:
    """The class folders by the strongest labels that name them, and notes on those that do not.

    Raises:
        ImagesError: no class folders, or a person's labels do not name them.
    """
    resolution = places.resolve()
    try:
        return scan_folder(options.clean_dir, resolution.facts.labels), places, []
    except ImagesError as error:
        source = resolution.sources.get("labels")
        if source is None or any(facts.labels for facts in places.own):
            raise
        folder, places, notes = _class_folders(options, places.without_labels_of(source))
        return folder, places, [f"The labels of {source} are not used: {error}", *notes]


def _search(
    loaded: LoadedModel,
    places: Places,
    folder: ImageFolder,
    options: ScanOptions,
    config: ModelConfig,
    device: torch.device,
    progress: Callable[[float], None] | None,
) -> tuple[CleanImages, PreprocessChoice, Resolution]:
    """The best of what is left open.

    Where the file does not state its layout, its channels are a guess too, and others are tried.
    """
    channels = places.fixed.channels
    own_channels, *own_size = native_shape(folder)
    guesses = [channels] if channels and loaded.layout else [channels, own_channels, 3, 1]
    failures: list[ModelFileError | UsageError] = []
    for number in dict.fromkeys(filter(None, guesses)):
        resolution = places.resolve(number)
        asked = resolution.facts.image_size or (own_size[0], own_size[1])
        height, width = places.fixed.size
        size = (height or asked[0], width or asked[1])
        try:
            options.preprocessing.check_channels(number)
            config.preprocessing.check_channels(number)
            tried = narrowed(resolution.facts, number)
            pool = load_pool(folder, number, size, options.images_per_class, options.seed)
            choice = choose_preprocessing(
                loaded.module, pool, tried, device, loaded.num_classes, progress
            )
        except (ModelFileError, UsageError) as error:
            failures.append(error)
            continue
        return pool, choice, resolution
    # What a person gave must fit the model's channels; that it does not fit a guess says nothing.
    of_the_model = (error for error in failures if isinstance(error, ModelFileError))
    raise failures[0] if channels else next(of_the_model, failures[0])
