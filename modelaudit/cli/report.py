"""Where the command line puts reports: files, and stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelaudit.cli.options import check_format, check_writable
from modelaudit.errors import (
    InternalError,
    ModelAuditError,
    UsageError,
    WorkerError,
    internal_error_text,
)

if TYPE_CHECKING:
    from modelaudit.failure import Failure
    from modelaudit.report import Report

_PLAIN = str.maketrans("╭╮╰╯─│█", "++++-|#")


def print_error(error: ModelAuditError) -> None:
    """What went wrong, on stderr."""
    if isinstance(error, InternalError):
        print(internal_error_text(str(error)), file=sys.stderr)
        if os.environ.get("MODELAUDIT_DEBUG"):
            print(error.details, file=sys.stderr)
        return
    where = f" while {error.stage}" if isinstance(error, WorkerError) and error.stage else ""
    print(f"modelaudit: error{where}: {error}", file=sys.stderr)


def check_outputs(format_: str, outputs: Sequence[Path]) -> None:
    """Fail before the scan, not after it.

    Raises:
        UsageError: an unknown format, or a file that cannot be written.
    """
    from modelaudit.formats import FORMATS, format_for

    check_format(format_, FORMATS)
    for path in outputs:
        format_for(path)
        check_writable(path)


def check_folder(path: Path) -> None:
    """Raise UsageError for a folder that cannot be written to nor be made."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"--pictures {path}: this is a file; give a folder.")
    parent = path if path.exists() else path.absolute().parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UsageError(f"--pictures {path}: {parent} is missing or cannot be written to.")


def write_report(report: Report | Failure, outputs: Sequence[Path]) -> list[str]:
    """Write all files; returns what went wrong, so that one bad file does not lose the others."""
    from modelaudit.formats import format_for

    problems = []
    for path in outputs:
        try:
            text = format_for(path)(report)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            problems.append(f"--output {path}: {error.strerror or error}.")
    return problems


def print_report(report: Report | Failure, format_: str, quiet: bool) -> None:
    """The report on stdout; in colour and as wide as the terminal when it is one."""
    from modelaudit.formats import FORMATS
    from modelaudit.formats.text import literal_console, renderable
    from modelaudit.formats.wording import summary_line

    if format_ != "text":
        sys.stdout.write(FORMATS[format_](report))
    elif quiet:
        print(summary_line(report))
    elif sys.stdout.isatty():
        literal_console().print(renderable(report))
    else:
        sys.stdout.write(_encodable(FORMATS["text"](report)))
    sys.stdout.flush()


def _encodable(text: str) -> str:
    """Text with plain characters for boxes and bars where stdout has no others."""
    try:
        text.encode(sys.stdout.encoding or "utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.translate(_PLAIN)
    return text
