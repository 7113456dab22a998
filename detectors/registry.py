"""The detectors by name, and their settings from text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from detectors.embeddings import EMBEDDINGS
from detectors.lred import LRed
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


REGISTRY: Mapping[str, Entry] = MappingProxyType(
    {
        "l-red": Entry(LRed, {}, f"L-RED, additive: {EMBEDDINGS['additive'].sees}", True),
        "l-red-sparse": Entry(
            LRed, {"embedding": "sparse"}, f"L-RED, sparse: {EMBEDDINGS['sparse'].sees}", True
        ),
        "l-red-warp": Entry(
            LRed, {"embedding": "warp"}, f"L-RED, warp: {EMBEDDINGS['warp'].sees}", False
        ),
    }
)


def default_names() -> tuple[str, ...]:
    """The detectors that a scan runs when none is named."""
    return tuple(name for name, entry in REGISTRY.items() if entry.default)


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
