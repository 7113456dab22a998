"""Report formats: one file each, a function from a report to text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from modelaudit.errors import UsageError
from modelaudit.failure import Failure
from modelaudit.formats.json_format import render_json
from modelaudit.formats.text import render_text
from modelaudit.report import Report

#: Name (as in ``--format``) -> renderer of a scan's report, or of a scan that failed.
FORMATS: Mapping[str, Callable[[Report | Failure], str]] = MappingProxyType(
    {"text": render_text, "json": render_json}
)
#: File name ending (as in ``--output``) -> name of the format.
EXTENSIONS: Mapping[str, str] = MappingProxyType({".json": "json", ".txt": "text"})


def format_for(path: Path) -> Callable[[Report | Failure], str]:
    """The renderer for an output file.

    Raises:
        UsageError: no format has that extension.
    """
    for extension, name in EXTENSIONS.items():
        if path.name.endswith(extension):
            return FORMATS[name]
    raise UsageError(
        f"--output {path}: no report format ends like this; known: {', '.join(EXTENSIONS)}."
    )
