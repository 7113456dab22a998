"""TOML files that a stranger may have written: small, and cheap to parse."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from modelaudit.errors import UsageError

#: Beside a model it describes the model; it may hold settings of the program, too.
CONFIG_NAME = "modelaudit.toml"
_MOST_BYTES = 2**18
# A dotted key of n parts costs tomllib n^2 in memory; no valid one has more than three.
_DOTTED = re.compile(
    r"""(?:(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){8}"""
)


def read_toml(path: Path, containing: str = "") -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        containing: a word; a file without it is not parsed but counts as empty.

    Raises:
        UsageError: it is not a regular file, too large, not valid, or cannot be read.
    """
    try:
        content = _small_content(path, containing.encode())
        return tomllib.loads(_text(path, content))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    except ValueError as error:  # no UTF-8, or a number with thousands of digits
        raise UsageError(f"{path} cannot be read: {error}.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _small_content(path: Path, containing: bytes) -> bytes:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file. Replace or remove it.")
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if containing not in content:
        return b""
    if len(content) > _MOST_BYTES:
        raise UsageError(
            f"{path} is larger than {_MOST_BYTES // 1024} KiB; long lists, of labels say, belong "
            "into a file of their own."
        )
    return content


def _text(path: Path, content: bytes) -> str:
    text = content.decode("utf-8")
    if _DOTTED.search(text):
        raise UsageError(f"{path} holds a key of more than 8 parts; no valid key has so many.")
    return text
