"""``modelaudit sweep``: is there a backdoor in any of these models?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli.fleet import Machines, fleet_options
from modelaudit.cli.groups import Running, Search
from modelaudit.cli.long import Budget
from modelaudit.cli.options import LabelsOption, check_format, check_writable
from modelaudit.cli.policy import Gate, tell_expired
from modelaudit.errors import UsageError


def sweep(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with models, nested or not, or a JSON list of them.",
            metavar="DIR_OR_MANIFEST",
        ),
    ],
    clean_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one folder of clean images per class, for the models whose entry in "
            "the list names none; else a folder 'images' beside the model, or above it.",
            metavar="DIR",
        ),
    ] = None,
    labels: LabelsOption = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out models with such a name, e.g. 'old/*'; repeatable."),
    ] = None,
    one_format: Annotated[
        bool,
        typer.Option(
            "--one-format",
            help="Of files that differ in the extension only, scan one: believe that they hold the "
            "same model.",
        ),
    ] = False,
    report_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write one report per model there, and the summary; finished models are not "
            "scanned again.",
            metavar="DIR",
        ),
    ] = None,
    report_format: Annotated[
        str, typer.Option(help="Formats of those reports, e.g. json,html; see scan --format.")
    ] = "json",
    *,
    search: Search,
    machines: Machines,
    format_: Annotated[
        str, typer.Option("--format", help="Summary on stdout: text, json or markdown.")
    ] = "text",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write the summary to a file (.txt, .json, .md); repeatable. Finished models "
            "in a JSON one are not scanned again.",
            metavar="FILE",
        ),
    ] = None,
    gate: Gate,
    budget: Budget,
    running: Running,
) -> int:
    """Scan every model in a folder or a list: one summary, one report per model.

    Exit codes, of the worst model that --fail-on names and no waiver covers: 1 backdoor found, else
    2 some model could not be scanned (or bad input), else 3 inconclusive, else 0. 130 interrupted.
    """
    outputs = tuple(output or ())
    report_formats = tuple(dict.fromkeys(one.strip() for one in report_format.split(",")))
    _check(format_, outputs, report_dir, report_formats)
    _check_images(clean_dir)
    from modelaudit.fleet.sweep import SweepOptions
    from modelaudit.fleet.sweep import sweep as run_sweep
    from modelaudit.formats.sweep import SUMMARY_FORMATS, sweep_line
    from modelaudit.progress import fleet_progress

    options = SweepOptions(
        source=source,
        clean_dir=clean_dir,
        labels=labels,
        exclude=tuple(exclude or ()),
        one_format=one_format,
        report_dir=report_dir,
        report_formats=report_formats,
        outputs=outputs,
        policy=gate.policy,
        **fleet_options(search, machines, budget, running),
    )
    with fleet_progress(running.quiet) as progress:
        summary = run_sweep(options, progress)
    if format_ == "text" and running.quiet:
        print(sweep_line(summary))
    else:
        print(SUMMARY_FORMATS[format_](summary), end="", flush=True)
    for one in summary.models:
        tell_expired(one.file, one.policy)
    return summary.exit_code


def _check(
    format_: str, outputs: tuple[Path, ...], report_dir: Path | None, formats: tuple[str, ...]
) -> None:
    """Fail before the scans, not after them."""
    from modelaudit.formats import FORMATS
    from modelaudit.formats.sweep import SUMMARY_FORMATS, summary_format_for

    check_format(format_, SUMMARY_FORMATS)
    if odd := [name for name in formats if name not in FORMATS]:
        known = ", ".join(FORMATS)
        raise UsageError(f"--report-format {odd[0]}: expected some of {known}, with commas.")
    if report_dir is not None:
        try:
            report_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--report-dir {report_dir}: {error.strerror or error}.") from error
    for path in outputs:
        summary_format_for(path)
        check_writable(path)


def _check_images(clean_dir: Path | None) -> None:
    """The same for the images: a mistake here would be that of every model."""
    if clean_dir is not None and not clean_dir.is_dir():
        raise UsageError(
            f"--clean-dir {clean_dir}: there is no such folder; give one that has a folder of "
            "clean images per class."
        )
