"""Which format an output file of a fleet has: its extension says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from modelaudit.errors import UsageError

T = TypeVar("T")


def by_extension(formats: Mapping[str, T], path: Path, what: str) -> T:
    """The format of ``path``.

    Args:
        formats: extension -> format.
        what: is written there, with an article.

    Raises:
        UsageError: no format has that extension.
    """
    if path.suffix not in formats:
        known = ", ".join(formats)
        raise UsageError(f"--output {path}: no format of {what} ends like this; known: {known}.")
    return formats[path.suffix]
