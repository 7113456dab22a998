"""``modelaudit screen``: which of these inputs carry a trigger?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli.groups import Running, Search, Subject, scan_options
from modelaudit.cli.long import Budget
from modelaudit.cli.options import check_format, check_writable
from modelaudit.errors import UsageError


def screen(
    subject: Subject,
    inputs: Annotated[
        Path, typer.Option(help="Folder with the images to judge, nested or not.", metavar="DIR")
    ],
    search: Search,
    *,
    false_rejection_rate: Annotated[
        float, typer.Option(help="Share of clean inputs that may be flagged.")
    ] = 0.05,
    superpositions: Annotated[
        int, typer.Option(help="Images laid over each input (STRIP).", min=1)
    ] = 100,
    format_: Annotated[
        str, typer.Option("--format", help="Report on stdout: text or json.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option(help="Also write the JSON report to a file.", metavar="FILE")
    ] = None,
    budget: Budget,
    running: Running,
) -> int:
    """Say which inputs carry a trigger; the model is scanned first.

    Exit codes: 0 none flagged, 1 some flagged, 2 error, 130 interrupted.
    """
    check_format(format_, ("text", "json"))
    if output is not None:
        if output.suffix != ".json":
            raise UsageError(f"--output {output}: the screening report is JSON; expected *.json.")
        check_writable(output)
    from modelaudit.progress import stage_progress
    from modelaudit.run import run_screen
    from modelaudit.screen_options import ScreenOptions

    scan = scan_options(subject, search, time_budget=budget.seconds)
    options = ScreenOptions(scan, inputs, false_rejection_rate, superpositions)
    with stage_progress(running.quiet) as progress:
        report = run_screen(options, running.limits, progress)
    from modelaudit.formats.screen_text import FORMATS, screen_json, screen_line

    if format_ == "text" and running.quiet:
        print(screen_line(report))
    else:
        print(FORMATS[format_](report), end="", flush=True)
    if output is not None:
        _write(screen_json(report), output)
    return 1 if report.flagged else 0


def _write(text: str, path: Path) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"--output {path}: {error.strerror or error}.") from error
