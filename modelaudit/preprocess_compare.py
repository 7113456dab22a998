"""Is a stated preprocessing right? Only asked when the model recognises too few images with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from modelaudit.errors import ModelFileError
from modelaudit.images import CleanImages
from modelaudit.loaders import LoadedModel
from modelaudit.preprocess import PreprocessChoice, candidates, choose_preprocessing
from modelaudit.stated import stated_places

# Another preprocessing is clearly better where it recognises this share of the images more, and at
# least two of them; a single image decides nothing.
_CLEARLY_BETTER = 0.1
_FEWEST_IMAGES = 2


def with_others(
    choice: PreprocessChoice,
    loaded: LoadedModel,
    pool: CleanImages,
    sources: Mapping[str, str],
    accuracy_floor: float,
    device: torch.device,
) -> tuple[PreprocessChoice, tuple[str, ...]]:
    """Measure the usual preprocessings beside a stated one that recognises too little.

    Args:
        choice: with what is stated.
        sources: name of a value -> its place, from :func:`modelaudit.stated.sources_of`.
        accuracy_floor: clean accuracy that is enough, 0 to 1.

    Returns:
        The same choice with the others in its table, and a note if one is clearly better. What is
        stated is never overridden.
    """
    places = stated_places(sources)
    tried = {one.preprocessing for one in choice.table}
    channels = pool.pixels.shape[1]
    others = tuple(one for one in candidates(channels, loaded.layout) if one not in tried)
    if choice.accuracy >= accuracy_floor or not places or not others:
        return choice, ()
    try:
        best = choose_preprocessing(loaded.module, pool, others, device, choice.num_classes)
    except ModelFileError:  # none of them can be called
        return choice, ()
    choice = replace(choice, table=(*choice.table, *best.table))
    more = round((best.accuracy - choice.accuracy) * choice.images)
    if more < max(_FEWEST_IMAGES, _CLEARLY_BETTER * choice.images):
        return choice, ()
    name = best.preprocessing.name.removesuffix(" NHWC")
    note = (
        f"With the preprocessing that {' and '.join(places)} state{'s' * (len(places) == 1)} "
        f"({choice.preprocessing.name}) clean accuracy is {choice.accuracy:.1%} on {choice.images} "
        f"images; with {best.preprocessing.name} it is {best.accuracy:.1%}. What is stated was "
        f"used; if it is wrong, give --preprocess {name} --layout {best.preprocessing.layout}."
    )
    return choice, (note,)
