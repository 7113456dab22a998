"""Parts of Markdown pages, and what docstrings say of fields."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped, and lines joined."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def code(value: object) -> str:
    """A value as code; nothing for an empty one."""
    return f"`{value}`" if str(value) else ""


def meanings(kind: Any) -> dict[str, str]:
    """Field -> what the "Attributes" of a class's docstring say of it.

    A class that refers to another one (``see :class:`package.module.Name```) has the meanings of
    its fields too.
    """
    text = inspect.cleandoc(kind.__doc__ or "")
    found: dict[str, str] = {}
    for place, name in re.findall(r":class:`([\w.]+)\.(\w+)`", text):
        if other := getattr(import_module(place), name, None):
            found |= _attributes(inspect.cleandoc(other.__doc__ or ""))
    return found | _attributes(text)


def plain(text: str) -> str:
    """Text of a docstring or of a help as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"\s+", " ", text).strip()


def _attributes(text: str) -> dict[str, str]:
    _, _, block = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + block.partition("\n\n")[0]):
        names, colon, meaning = entry.strip("\n").partition(":")
        if colon:
            found |= {name.strip(): plain(meaning) for name in names.split(",")}
    return found


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
