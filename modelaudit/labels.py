"""Read the names of a model's outputs from a labels file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from modelaudit.errors import ImagesError

_ACCEPTED = (
    "expected one name per line in output order, or JSON: a list of names, "
    '{"id2label": {"0": "name", ...}} or {"0": "name", ...}'
)


def read_labels(path: Path) -> tuple[str, ...]:
    """Names of the outputs 0 .. K-1, in output order.

    Args:
        path: text with one name per line (UTF-8; blank lines at the end are dropped), or JSON: a
            list of names, a Hugging Face style ``{"id2label": {"0": "name"}}``, or
            ``{"0": "name"}``.

    Raises:
        ImagesError: the file cannot be read, is empty, or leaves an output without a name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(f"Cannot read the labels file {path}: {error}; {_ACCEPTED}.") from error
    if text.lstrip().startswith(("{", "[")):
        names = _from_json(path, text)
    else:
        names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names:
        raise ImagesError(f"The labels file {path} is empty; {_ACCEPTED}.")
    blank = next((i for i, name in enumerate(names) if not name), None)
    if blank is not None:
        raise ImagesError(
            f"The labels file {path} has no name for output {blank} (a blank line or entry before "
            "the end). A blank would shift every later name; fill it or remove it."
        )
    return names


def ordered_names(data: object) -> tuple[str, ...]:
    """Names in output order, from a list or a mapping.

    Args:
        data: as read from JSON or the like: ``["a", "b"]``, ``{"0": "a", "1": "b"}``,
            ``{0: "a", 1: "b"}``, or one of these under ``id2label``.

    Raises:
        ValueError: anything else, or indices that are not 0 .. K-1; the message says what.
    """
    if isinstance(data, Mapping):
        data = data.get("id2label", data)
    if isinstance(data, Mapping):
        data = _in_order(data)
    if not isinstance(data, list | tuple) or not all(isinstance(name, str) for name in data):
        raise ValueError("not a list of names")
    return tuple(name.strip() for name in data)


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImagesError(
            f"The labels file {path} looks like JSON but is not: {error}; {_ACCEPTED}."
        ) from error
    try:
        return ordered_names(data)
    except ValueError as error:
        raise ImagesError(f"The labels file {path} is JSON but {error}; {_ACCEPTED}.") from error


def _in_order(names: Mapping[object, object]) -> list[object]:
    """The values of ``{0: name, ...}`` or ``{"0": name, ...}`` in index order."""
    by_index = {_index(key): value for key, value in names.items()}
    if len(by_index) != len(names) or set(by_index) != set(range(len(names))):
        found = ", ".join(str(index) for index in list(by_index)[:10])
        raise ValueError(
            f"not a name for every output 0 .. {len(names) - 1} exactly once; found the indices "
            f"{found} ..."
        )
    return [by_index[index] for index in range(len(names))]


def _index(key: object) -> int:
    if type(key) is int:
        return key
    if isinstance(key, str) and key.isdecimal() and key.isascii():
        return int(key)
    raise ValueError(f"has the key {key!r} where an output index was expected")
