"""``modelaudit scan``: is there a backdoor in this model?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli.groups import Running, Search, Subject, scan_options
from modelaudit.cli.long import Length, first_interrupt
from modelaudit.cli.options import ExamineOption
from modelaudit.cli.policy import Gate, exit_code_of, with_origins
from modelaudit.cli.report import (
    check_folder,
    check_outputs,
    print_error,
    print_report,
    write_report,
)
from modelaudit.errors import ModelAuditError, UsageError

SuspectDirOption = Annotated[
    Path | None, typer.Option(help="Folder of inputs to examine (STRIP).", metavar="DIR")
]
TrainDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with one folder of training images per class, to examine.", metavar="DIR"
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        help="Report on stdout: text, json, html, markdown, sarif, junit, cyclonedx or intoto.",
    ),
]
OutputOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Also write the report to a file; the extension says the format (.json, .txt, "
        ".html, .md, .sarif, .junit.xml, .cdx.json, .intoto.json); repeatable.",
        metavar="FILE",
    ),
]
PicturesOption = Annotated[
    Path | None,
    typer.Option(help="Write pictures of a found pattern to this folder, as PNG.", metavar="DIR"),
]


def scan(
    context: typer.Context,
    subject: Subject,
    search: Search,
    *,
    examine: ExamineOption = None,
    suspect_dir: SuspectDirOption = None,
    train_dir: TrainDirOption = None,
    format_: FormatOption = "text",
    output: OutputOption = None,
    pictures: PicturesOption = None,
    gate: Gate,
    length: Length,
    running: Running,
) -> int:
    """Scan a classifier for backdoors.

    Exit codes: 0 no backdoor found, 1 backdoor found, 2 error, 3 inconclusive, 130 interrupted.
    """
    outputs = output or []
    check_outputs(format_, outputs)
    if pictures is not None:
        check_folder(pictures)
    from modelaudit.loaders.fingerprint import sha256_of
    from modelaudit.progress import stage_progress
    from modelaudit.run import run_scan

    with _failure_reported(subject.model, format_, outputs, gate):
        policy = gate.policy
        sha256 = sha256_of(subject.model) if policy.waivers else None
        limits = running.limits
        options = scan_options(
            subject,
            search,
            examine=tuple(examine or ()),
            suspect_dir=suspect_dir,
            train_dir=train_dir,
            time_budget=length.seconds,
        )
        checkpoint = length.checkpoint(subject.model, running.quiet)
        with stage_progress(running.quiet) as progress, first_interrupt() as stop:
            report = run_scan(options, limits, progress, checkpoint, stop)
        report = policy.judged(with_origins(report, context), sha256)
        problems = write_report(report, outputs)
    if pictures is not None:
        from modelaudit.formats.picture_files import write_pictures

        problems += write_pictures(report, pictures)
    print_report(report, format_, running.quiet)
    if problems:
        raise UsageError(" ".join(problems))
    if report.interrupted:
        print(f"modelaudit: {length.after_interruption}", file=sys.stderr)
    return exit_code_of(report)


@contextmanager
def _failure_reported(
    model: Path, format_: str, outputs: Sequence[Path], gate: Gate
) -> Iterator[None]:
    """A scan that fails leaves a report too, in place of any older one; stderr gets the error."""
    try:
        yield
    except Exception as error:
        from modelaudit.failure import failure_of

        policy = gate.without_waivers(error)
        failure = policy.judged_failure(failure_of(model, error))
        for problem in write_report(failure, outputs):
            print(f"modelaudit: error: {problem}", file=sys.stderr)
        if format_ != "text":
            print_report(failure, format_, quiet=False)
        if policy.exit_code_of(error) or not isinstance(error, ModelAuditError):
            raise
        print_error(error)
        raise typer.Exit(0) from error
