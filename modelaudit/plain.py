"""Typed dataclasses to plain JSON values and back.

What comes back from a worker process that ran a hostile model is not trusted: no pickle, and every
value must have the type that the dataclass states.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

# What steers a terminal or changes the order of text on it, halves of characters, and the two
# codes that are no characters, which make XML ill-formed.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_LARGEST_INTEGER = 2**64


def to_plain(value: Any) -> Any:
    """Dataclasses and mappings as objects, tuples as lists, paths and enums as text.

    Raises:
        TypeError: a value of another type.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(kind: type[T], value: Any) -> T:
    """The value of type ``kind`` that :func:`to_plain` turned into ``value``.

    Args:
        kind: a dataclass, or any type that its fields may have: ``bool``, ``int``, ``float``,
            ``str``, ``Path``, an enum, ``Literal``, optionals, tuples, mappings from ``str``.

    Raises:
        ValueError: ``value`` is not of that form; the message names the place.
    """
    return cast(T, _read(kind, value, kind.__name__))


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, place)
    if origin is Literal:
        return _one_of(arguments, value, place)
    if origin is tuple:
        return _tuple(arguments, value, place)
    if origin is not None and issubclass(origin, Mapping):
        items = _require(dict, value, place)
        return {key: _read(arguments[1], item, f"{place}.{key}") for key, item in items.items()}
    if is_dataclass(kind):
        return _dataclass(cast(type, kind), value, place)
    if issubclass(kind, Enum):
        return kind(_one_of([member.value for member in kind], value, place))
    if kind is Path:
        return Path(_require(str, value, place))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _require(kind, value, place)


def _dataclass(kind: type, value: Any, place: str) -> Any:
    items, hints = _require(dict, value, place), get_type_hints(kind)
    if items.keys() != hints.keys():
        odd = ", ".join(sorted(items.keys() ^ hints.keys()))
        raise ValueError(f"{place}: missing or unexpected: {odd}")
    return kind(**{key: _read(hints[key], item, f"{place}.{key}") for key, item in items.items()})


def _optional(choices: tuple[Any, ...], value: Any, place: str) -> Any:
    (kind,) = (choice for choice in choices if choice is not types.NoneType)
    return None if value is None else _read(kind, value, place)


def _one_of(choices: Any, value: Any, place: str) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{place}: one of {', '.join(map(str, choices))} expected")
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    items = _require(list, value, place)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(kinds) != len(items):
        raise ValueError(f"{place}: {len(kinds)} values expected, found {len(items)}")
    return tuple(_read(kind, item, place) for kind, item in zip(kinds, items, strict=True))


def _require(kind: type, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{place}: {kind.__name__} expected, found {type(value).__name__}")
    return value


def printable(text: str, lines: bool = False) -> str:
    """Text with escapes (``\\x1b``) for what a terminal would not show but do.

    Args:
        lines: whether the text may have several.
    """

    def escaped(found: re.Match[str]) -> str:
        return "\n" if lines and found[0] == "\n" else ascii(found[0])[1:-1]

    return _UNPRINTABLE.sub(escaped, text)


def harmless(value: Any) -> Any:
    """JSON values of a stranger, with all text in them :func:`printable`.

    Raises:
        ValueError: numbers that JSON does not have, or that no machine computes with.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): harmless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [harmless(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number expected, found {value}")
    if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
        raise ValueError("a number of at most 64 bits expected")
    return value
