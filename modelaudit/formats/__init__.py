"""Report formats: one module each with a function from a report to text.

A format is imported when it is used, so that none costs those who use another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from modelaudit.errors import UsageError
from modelaudit.failure import Failure
from modelaudit.report import Report


@dataclass(frozen=True)
class Format:
    """A report format; calling it renders a scan's report, or that of a scan that failed.

    Attributes:
        name: as in ``--format``; the module ``modelaudit.formats.<module>`` has the function
            ``render_<name>``.
        extensions: file name endings, as in ``--output``.
    """

    name: str
    module: str
    extensions: tuple[str, ...]

    def __call__(self, report: Report | Failure) -> str:
        module = import_module(f"modelaudit.formats.{self.module}")
        text: str = getattr(module, f"render_{self.name}")(report)
        return text


_ALL = (
    Format("text", "text", (".txt",)),
    Format("json", "json_format", (".json",)),
    Format("html", "html", (".html",)),
    Format("markdown", "markdown", (".md",)),
    Format("sarif", "sarif", (".sarif", ".sarif.json")),
    Format("junit", "junit", (".junit.xml",)),
    Format("cyclonedx", "cyclonedx", (".cdx.json",)),
    Format("intoto", "intoto", (".intoto.json",)),
)
#: Name (as in ``--format``) -> format.
FORMATS: Mapping[str, Format] = MappingProxyType({one.name: one for one in _ALL})
#: File name ending (as in ``--output``) -> name of the format. The longest that fits counts.
EXTENSIONS: Mapping[str, str] = MappingProxyType(
    {extension: one.name for one in _ALL for extension in one.extensions}
)


def format_for(path: Path) -> Format:
    """The format of an output file.

    Raises:
        UsageError: no format has that extension.
    """
    fitting = [extension for extension in EXTENSIONS if path.name.endswith(extension)]
    if fitting:
        return FORMATS[EXTENSIONS[max(fitting, key=len)]]
    raise UsageError(
        f"--output {path}: no report format ends like this; known: {', '.join(EXTENSIONS)}."
    )
