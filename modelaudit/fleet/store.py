"""What a fleet's report keeps of earlier runs: read it, and replace it in one step.

An earlier report is trusted as the program itself is: whoever can write it can forge a verdict. So
it must not come with the models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from modelaudit.errors import ManifestError, UsageError
from modelaudit.files import write_whole

T = TypeVar("T")


def read_finished(
    outputs: Iterable[Path], what: str, entry: Callable[[Mapping[str, Any]], T]
) -> list[T]:
    """The entries ``models`` of the earlier reports that are JSON and exist.

    Args:
        what: such a report is, with an article.
        entry: turns the JSON object of a model into what is kept of it; raises KeyError, TypeError
            or ValueError for something else.

    Raises:
        ManifestError: a file is something else.
    """
    return [
        one for path in outputs if path.suffix == ".json" for one in _entries(path, what, entry)
    ]


def _entries(path: Path, what: str, entry: Callable[[Mapping[str, Any]], T]) -> list[T]:
    if not path.exists():
        return []
    try:
        return [entry(one) for one in json.loads(path.read_text("utf-8"))["models"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f"{path} exists but is not {what} to resume from ({error}). Move it away or give "
            "another --output."
        ) from error


def save_report(path: Path, text: str) -> None:
    """Replace a report in one step, so that an interruption leaves a whole one.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        # A file's name may hold bytes that are no text.
        write_whole(path, text.encode(errors="backslashreplace").decode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
