"""The detectors by name, and their settings from text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from detectors.embeddings import EMBEDDINGS
from detectors.lred import LRed
from detectors.mm_bd import MmBd
from detectors.neural_cleanse import NeuralCleanse
from detectors.types import Detector


@dataclass(frozen=True)
class Entry:
    """A registered detector.

    Attributes:
        config: frozen dataclass whose fields are the settings; an instance is the detector.
        defaults: settings that differ from the dataclass's defaults.
        summary: one line for ``modelaudit detectors``.
        default: whether a scan runs it when none is named.
    """

    config: Callable[..., Detector]
    defaults: Mapping[str, Any]
    summary: str
    default: bool


#: In an all-to-all attack every class is a source alike, and it can reach no more images than the
#: model classifies correctly.
_ALL_TO_ALL = {"sources": "all-to-all", "weights": "uniform", "pi": 0.5, "per_class": 4}


def _one_target(embedding: str, default: bool = True) -> Entry:
    summary = f"L-RED, {embedding}: {EMBEDDINGS[embedding].sees}"
    return Entry(LRed, {"embedding": embedding}, summary, default)


def _all_to_all(embedding: str) -> Entry:
    summary = f"L-RED, {embedding}, every class to the one d after it: all-to-all attacks"
    return Entry(LRed, {"embedding": embedding, **_ALL_TO_ALL}, summary, True)


REGISTRY: Mapping[str, Entry] = MappingProxyType(
    {
        "l-red": _one_target("additive"),
        "l-red-sparse": _one_target("sparse"),
        "l-red-warp": _one_target("warp"),
        "l-red-generator": _one_target("generator"),
        "l-red-all-to-all": _all_to_all("additive"),
        "l-red-all-to-all-sparse": _all_to_all("sparse"),
        "l-red-patch": _one_target("patch", default=False),
        "neural-cleanse": Entry(
            NeuralCleanse, {}, "Neural Cleanse: patches that work on images of all classes", False
        ),
        "mm-bd": Entry(MmBd, {}, "MM-BD: maximum margin, any kind of pattern, no images", True),
    }
)


#: What ``--fast`` runs, as far as it is registered.
FAST = ("l-red", "mm-bd")


def default_names() -> tuple[str, ...]:
    """The detectors that a scan runs when none is named."""
    return tuple(name for name, entry in REGISTRY.items() if entry.default)


def preset_names(preset: str) -> tuple[str, ...]:
    """The detectors of ``default``, ``fast`` (the cheapest) or ``thorough`` (all of them)."""
    if preset == "default":
        return default_names()
    return tuple(name for name in REGISTRY if preset == "thorough" or name in FAST)


def build(name: str, settings: Mapping[str, str]) -> Detector:
    """A detector with settings given as text.

    Raises:
        ValueError: unknown detector or setting, or a value that does not fit; the message says
            what would.
    """
    if name not in REGISTRY:
        raise ValueError(f"there is no detector {name!r}; there are: {', '.join(REGISTRY)}")
    entry = REGISTRY[name]
    types = setting_types(name)
    values = dict(entry.defaults)
    for key, text in settings.items():
        if key not in types:
            raise ValueError(f"{name} has no setting {key!r}; it has: {', '.join(types)}")
        values[key] = _parse(f"{name}.{key}", text, types[key])
    try:
        return entry.config(name=name, **values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def setting_types(name: str) -> dict[str, Any]:
    """Setting -> type of a registered detector."""
    config: Any = REGISTRY[name].config
    hints = get_type_hints(config)
    return {f.name: hints[f.name] for f in fields(config) if f.name != "name"}


def setting_defaults(name: str) -> dict[str, Any]:
    """Setting -> default value of a registered detector."""
    entry = REGISTRY[name]
    config: Any = entry.config
    return {
        f.name: entry.defaults.get(f.name, f.default) for f in fields(config) if f.name != "name"
    }


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
