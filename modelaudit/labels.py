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
        names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise ImagesError(f"The labels file {path} is empty; {_ACCEPTED}.")
    blank = next((i for i, name in enumerate(names) if not name), None)
    if blank is not None:
        raise ImagesError(
            f"The labels file {path} has no name for output {blank} (a blank line or entry before "
            "the end). A blank would shift every later name; fill it or remove it."
        )
    return tuple(names)


def _from_json(path: Path, text: str) -> list[str]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImagesError(
            f"The labels file {path} looks like JSON but is not: {error}; {_ACCEPTED}."
        ) from error
    if isinstance(data, Mapping):
        data = _in_order(path, data.get("id2label", data))
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ImagesError(f"The labels file {path} is JSON but not a list of names; {_ACCEPTED}.")
    return [name.strip() for name in data]


def _in_order(path: Path, by_index: object) -> object:
    """Values of ``{"0": ..., "1": ...}`` in index order; anything but a mapping as it is."""
    if not isinstance(by_index, Mapping):
        return by_index
    keys = list(by_index)
    if not all(key.isdecimal() and key.isascii() for key in keys):
        odd = next(key for key in keys if not (key.isdecimal() and key.isascii()))
        raise ImagesError(
            f"The labels file {path} has the key {odd!r} where an output index was expected; "
            f"{_ACCEPTED}."
        )
    names = {int(key): by_index[key] for key in keys}
    if len(names) != len(keys) or set(names) != set(range(len(names))):
        raise ImagesError(
            f"The labels file {path} must name every output 0 .. {len(keys) - 1} exactly once; "
            f"found the indices {sorted(int(key) for key in keys)[:10]} ..."
        )
    return [names[index] for index in range(len(names))]
