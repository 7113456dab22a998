"""The detectors by name, built in or of other packages, and their settings from text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from detectors import plugins
from detectors.embedding_margin import EmbeddingMargin
from detectors.embeddings import EMBEDDINGS
from detectors.entry import Entry, setting_types
from detectors.joint import EVIDENCE, Joint
from detectors.lred import NEURONS, LRed
from detectors.mm_bd import PRIOR as MM_BD_PRIOR
from detectors.mm_bd import MmBd
from detectors.neural_cleanse import NeuralCleanse
from detectors.types import Detector
from detectors.wave_margin import WaveMargin
from detectors.window_margin import WindowMargin

__all__ = [
    "FAST",
    "REGISTRY",
    "Entry",
    "build",
    "cost",
    "default_names",
    "find",
    "in_order",
    "preset_names",
    "refuse_ambiguous",
    "runs_after",
    "weights",
]

#: In an all-to-all attack every class is a source alike, and it can reach no more images than the
#: model classifies correctly.
_ALL_TO_ALL = {"sources": "all-to-all", "weights": "uniform", "pi": 0.5, "per_class": 3}


def _one_target(
    embedding: str, default: bool = True, weight: float = 1.0, **settings: Any
) -> Entry:
    summary = f"L-RED, {embedding}: {EMBEDDINGS[embedding].sees}"
    return Entry(LRed, {"embedding": embedding, **settings}, summary, default, weight=weight)


def _all_to_all(embedding: str) -> Entry:
    summary = f"L-RED, {embedding}, every class to the one d after it: all-to-all attacks"
    settings = {"embedding": embedding, **_ALL_TO_ALL}
    return Entry(LRed, settings, summary, True, weight=1 / 6)  # the three share 1/2


def _margin(embedding: str) -> Entry:
    summary = f"the largest gain by a small change, {embedding}: {EMBEDDINGS[embedding].sees}"
    # What these find stands out by far, and each attack to several of them.
    return Entry(EmbeddingMargin, {"embedding": embedding}, summary, True, weight=0.25)


REGISTRY: Mapping[str, Entry] = MappingProxyType(
    {
        "l-red": _one_target("additive"),
        "l-red-sparse": _one_target("sparse"),
        # A field that few images share is a warp: more of them say nothing new. And what stands
        # out does so by far, here and in the all-to-all attacks: less weight loses nothing.
        "l-red-warp": _one_target("warp", weight=0.5, per_class=4),
        "l-red-neurons": Entry(
            LRed, NEURONS, f"L-RED, neurons: {EMBEDDINGS['neurons'].sees}", default=True
        ),
        "l-red-all-to-all": _all_to_all("additive"),
        "l-red-all-to-all-sparse": _all_to_all("sparse"),
        "l-red-all-to-all-neurons": _all_to_all("neurons"),
        "l-red-generator": _one_target("generator", default=False),
        "l-red-patch": _one_target("patch", default=False),
        "neural-cleanse": Entry(
            NeuralCleanse, {}, "Neural Cleanse: patches that work on images of all classes", False
        ),
        "mm-bd": Entry(
            MmBd,
            {},
            "MM-BD: maximum margin, any kind of pattern, no images",
            default=True,
            floor=MM_BD_PRIOR.strays,
        ),
        "window-margin": Entry(
            WindowMargin,
            {},
            "the largest margin that a window of clean images can reach: patches of any content",
            default=True,
        ),
        "additive-margin": _margin("additive"),
        "sparse-margin": _margin("sparse"),
        "warp-margin": _margin("warp"),
        "colour-margin": _margin("colour"),
        "generator-margin": _margin("generator"),
        "neurons-margin": _margin("neurons"),
        "wave-margin": Entry(
            WaveMargin,
            {},
            "the largest gain by a faint wave: sinusoids, chessboards, patterns in the frequencies",
            default=True,
            weight=0.5,
        ),
        "joint": Entry(
            Joint,
            {},
            "a class that is easy for several detectors together, but not in a clean twin",
            default=True,
            after=EVIDENCE,
        ),
    }
)


#: What ``--fast`` runs.
FAST = ("l-red", "mm-bd")
#: In the order in which a scan starts them: those of ``--fast``, what another one waits for, and
#: the rest, each from cheap to dear; with thousands of image-passes on a model of ten classes.
#: (``joint`` counts as by its time: it works on a model of its own, too.)
_COSTS: Mapping[str, float] = MappingProxyType(
    {
        "mm-bd": 3,
        "l-red": 16,
        "l-red-neurons": 5,
        "l-red-sparse": 22,
        "joint": 12,
        "colour-margin": 1,
        "neurons-margin": 1,
        "additive-margin": 2,
        "generator-margin": 2,
        "warp-margin": 2,
        "sparse-margin": 3,
        "wave-margin": 5,
        "l-red-all-to-all": 6,
        "window-margin": 7,
        "l-red-all-to-all-neurons": 7,
        "l-red-warp": 10,
        "l-red-all-to-all-sparse": 10,
        "l-red-patch": 20,
        "neural-cleanse": 25,
        "l-red-generator": 50,
    }
)
_UNKNOWN_COST = 20.0
#: The weight of a detector that cannot decide alone.
_IDLE = 1e-3


def default_names() -> tuple[str, ...]:
    """The detectors that a scan runs when none is named."""
    return tuple(name for name, entry in REGISTRY.items() if entry.default)


def preset_names(preset: str) -> tuple[str, ...]:
    """The detectors of ``default``, ``fast`` (for a first look) or ``thorough`` (all of them)."""
    if preset == "default":
        return default_names()
    return tuple(name for name in REGISTRY if preset == "thorough" or name in FAST)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The detectors in the order in which a scan starts them; those of other packages come last."""
    places = {name: place for place, name in enumerate(_COSTS)}
    return tuple(sorted(names, key=lambda name: places.get(name, len(places))))


def cost(name: str) -> float:
    """What a detector costs, roughly, against the others; for a progress display."""
    return _COSTS.get(name, _UNKNOWN_COST)


def runs_after(name: str) -> tuple[str, ...]:
    """The detectors whose results this one is given; none for those of other packages."""
    return REGISTRY[name].after if name in REGISTRY else ()


def weights(names: Iterable[str], alpha: float) -> dict[str, float]:
    """What the p-value of each of these detectors, all with one, weighs in Holm's procedure.

    One that cannot decide alone, because its p-values do not fall below its share of ``alpha``,
    would take that share from the others for nothing. It weighs next to nothing.
    """
    entries = {name: REGISTRY.get(name) for name in names}
    own = {name: entry.weight if entry else 1.0 for name, entry in entries.items()}
    share = alpha / math.fsum(own.values()) if own else 0.0
    return {
        name: _IDLE if entry and entry.floor >= share * own[name] else own[name]
        for name, entry in entries.items()
    }


def find(name: str) -> Entry:
    """A built-in detector, or one of another package, which is then imported.

    Raises:
        ValueError: there is none of that name, or it cannot be loaded; the message says why.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    declared = plugins.declarations()
    if name not in declared:
        there_are = ", ".join([*REGISTRY, *declared])
        raise ValueError(f"there is no detector {name!r}; there are: {there_are}")
    return plugins.load(name, declared[name])


def refuse_ambiguous(names: Iterable[str]) -> None:
    """Does each of these names, which somebody asked for, mean one detector?

    Raises:
        ValueError: another package declares a name that is built in.
    """
    declared = plugins.declarations()
    for name in names:
        if name in REGISTRY and name in declared:
            raise ValueError(
                f"the detector {name!r} is built in, but {plugins.places(declared[name])} declares "
                "the same name; uninstall that package, or name its detector otherwise"
            )


def build(name: str, settings: Mapping[str, str]) -> Detector:
    """A detector with settings given as text.

    Raises:
        ValueError: as :func:`find`; or an unknown setting, or a value that does not fit, and the
            message says what would.
    """
    entry = find(name)
    types = setting_types(entry)
    values = dict(entry.defaults)
    for key, text in settings.items():
        if key not in types:
            raise ValueError(f"{name} has no setting {key!r}; it has: {', '.join(types)}")
        values[key] = _parse(f"{name}.{key}", text, types[key])
    try:
        detector = entry.config(name=name, **values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return detector if name in REGISTRY else plugins.Foreign(name, detector)


def _parse(where: str, text: str, kind: Any) -> Any:
    """One setting's value from text."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"{where} is {text!r}; it must be one of: {_join(get_args(kind))}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where} is {text!r}; it must be true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{where} is {text!r}; it must be of type {kind.__name__}") from error


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
