"""Which place is believed about a model's classes and its input: the order of precedence.

For every value on its own (labels, mean, std, input range, channel order, layout, image size), the
first place that states it:

1. the command line;
2. ``modelaudit.toml`` beside the model file, or in the model's folder;
3. the model file and the files that belong to it: the layout that its input shape shows, then
   :attr:`modelaudit.loaders.LoadedModel.stated` in its order (``preprocessor_config.json``, a timm
   configuration, ONNX metadata ...);
4. the clean images: the names of their folders, their size, and for how pixels become the input
   the usual preprocessings, of which the one with the best clean accuracy is kept.

A value from 1 to 3 is used as it is; only what they leave open is searched, as
:func:`modelaudit.preprocess_table.narrowed` says. Places that contradict each other are noted. What
a graph fixes, the size of its input and the number of its outputs, cannot be overridden: a person's
value (1, 2) that contradicts it is an error, a file's (3) is ignored with a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modelaudit.errors import ImagesError, UsageError
from modelaudit.loaders.types import StatedFacts
from modelaudit.stated_checks import Fixed, image_size_problem, label_problem, usable

if TYPE_CHECKING:
    from modelaudit.loaders import LoadedModel

COMMAND_LINE = "the command line"
MODEL_FILE = "the model file"
CLEAN_IMAGES = "the clean images"
CLASS_FOLDERS = "the class folders"
CLEAN_ACCURACY = "clean accuracy"
DEFAULT = "default"

#: The values of :class:`StatedFacts` that say how pixels become the input.
ARITHMETIC = ("mean", "std", "input_range", "channel_order")
_VALUES = ("labels", *ARITHMETIC, "layout", "image_size")
# Two roundings of the same mean are no contradiction.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Resolution:
    """What is stated about a model, and by whom.

    Attributes:
        facts: every value from the strongest place that states it.
        sources: name of a value that is stated -> the place.
        notes: sentences on contradictions and on values that are ignored.
    """

    facts: StatedFacts
    sources: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """All that is said about a model.

    Attributes:
        own: by a person, the stronger first; taken as it is.
        stated: by the model's files, the stronger first; not trusted, so values that cannot be
            used are ignored with a note.
        fixed: by the graph.
    """

    own: tuple[StatedFacts, ...] = ()
    stated: tuple[StatedFacts, ...] = ()
    fixed: Fixed = field(default_factory=Fixed)

    def without_labels_of(self, source: str) -> Places:
        """The same, but ``source`` among the model's files states no labels."""
        stated = (replace(f, labels=None) if f.source == source else f for f in self.stated)
        return replace(self, stated=tuple(stated))

    def resolve(self, channels: int | None = None) -> Resolution:
        """Take every value from the first place that states it.

        Args:
            channels: C of the input where the graph leaves it open.

        Raises:
            UsageError: a person's labels do not fit the number of outputs.
            ImagesError: a person's image size contradicts the model file.
        """
        fixed = replace(self.fixed, channels=channels or self.fixed.channels)
        for facts in self.own:
            _require_fitting(facts, fixed)
        notes: list[str] = []
        places = list(self.own)
        for facts in self.stated:
            kept, problems = usable(facts, fixed)
            places.append(kept)
            notes += problems
        values, sources, overridden = _first_of_each(places)
        notes += [_override(*pair, keys) for pair, keys in overridden.items()]
        return Resolution(StatedFacts("resolved", **values), sources, tuple(dict.fromkeys(notes)))


def places_of(loaded: LoadedModel, own: tuple[StatedFacts, ...]) -> Places:
    """What is said about a loaded model.

    The layout of its graph is judged by the shape of the input, so a person's goes before it and
    decides which extents of that shape are channels, height and width.

    Args:
        loaded: the model.
        own: what a person says, the stronger first.
    """
    layout = next((facts.layout for facts in own if facts.layout), loaded.layout)
    channels, height, width = loaded.input_shape or (None, None, None)
    if loaded.layout and layout == "NHWC":
        height, width, channels = channels, height, width
    size = None if height is None or width is None else (height, width)
    graph = StatedFacts(MODEL_FILE, layout=loaded.layout, image_size=size)
    fixed = Fixed(loaded.num_classes, channels, (height, width))
    return Places(own, (graph, *loaded.stated), fixed)


def sources_of(resolution: Resolution) -> dict[str, str]:
    """Where every value comes from once the clean images have settled what nobody states."""
    facts = resolution.facts
    settled = not (facts.mean is None and facts.std is None and facts.input_range is None)
    return {
        "labels": CLASS_FOLDERS,
        **dict.fromkeys(ARITHMETIC, DEFAULT if settled else CLEAN_ACCURACY),
        "layout": CLEAN_ACCURACY,
        "image_size": CLEAN_IMAGES,
        **resolution.sources,
    }


def stated_places(sources: Mapping[str, str]) -> tuple[str, ...]:
    """The places that settle the preprocessing; empty where clean accuracy chose it.

    Args:
        sources: from :func:`sources_of`.
    """
    places = dict.fromkeys(sources[key] for key in ARITHMETIC)
    return () if CLEAN_ACCURACY in places else tuple(p for p in places if p != DEFAULT)


def _first_of_each(
    places: Sequence[StatedFacts],
) -> tuple[dict[str, Any], dict[str, str], dict[tuple[str, str], list[str]]]:
    """Value by name, its place by name, and (winner, loser) -> names they contradict in."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    overridden: dict[tuple[str, str], list[str]] = {}
    for place in places:
        for key in _VALUES:
            value = getattr(place, key)
            if value is None:
                continue
            if key not in values:
                values[key], sources[key] = value, place.source
            elif not _same(values[key], value):
                overridden.setdefault((sources[key], place.source), []).append(key)
    return values, sources, overridden


def _require_fitting(facts: StatedFacts, fixed: Fixed) -> None:
    problem = label_problem(facts.labels, fixed)
    if problem:
        raise UsageError(
            f"The labels of {facts.source} do not fit: {problem}. Give one name per output, in "
            "output order."
        )
    problem = image_size_problem(facts.image_size, fixed)
    if problem:
        raise ImagesError(f"The image size of {facts.source} does not fit: {problem}.")


def _same(a: Any, b: Any) -> bool:
    if not (isinstance(a, tuple) and isinstance(a[0], float)):
        return bool(a == b)
    length = max(len(a), len(b))
    pairs = zip(*(n * length if len(n) == 1 else n for n in (a, b)), strict=False)
    return all(math.isclose(x, y, abs_tol=_ROUNDING) for x, y in pairs)


def _override(winner: str, loser: str, keys: Sequence[str]) -> str:
    names = [key.replace("_", " ") for key in keys]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    sentence = f"{winner} overrides {listed} of {loser}."
    return sentence[0].upper() + sentence[1:] if winner.startswith("the ") else sentence
