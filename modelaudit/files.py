"""Folders and files that the program keeps for itself. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``$MODELAUDIT_CACHE``, else ``$XDG_CACHE_HOME/modelaudit``, else ``~/.cache/modelaudit``."""
    if own := os.environ.get("MODELAUDIT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelaudit"


def write_whole(path: Path, text: str) -> None:
    """Replace a text file in one step, so that an interruption leaves a whole one.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:  # an interruption, too, leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise
