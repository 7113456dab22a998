"""The command line: parse, call, print, exit. Nothing here imports torch until it is needed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelaudit import __version__
from modelaudit.cli_options import (
    AlphaOption,
    ArchOption,
    ChannelOrderOption,
    CleanDirOption,
    DetectorOption,
    DeviceOption,
    FastOption,
    FloorOption,
    ImageSizeOption,
    ImagesPerClassOption,
    InputRangeOption,
    IsolationOption,
    LabelsOption,
    LayoutOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    NumClassesOption,
    PreprocessOption,
    QuietOption,
    SeedOption,
    SetOption,
    StdOption,
    ThoroughOption,
    check_writable,
    limits_of,
    parse_settings,
    parse_size,
    preset_of,
)
from modelaudit.cli_screen import screen
from modelaudit.errors import (
    InternalError,
    ModelAuditError,
    UsageError,
    WorkerError,
    internal_error_text,
)
from modelaudit.exit_codes import EXIT_CODES, EXIT_ERROR, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from modelaudit.failure import Failure
    from modelaudit.report import Report

#: What typer raises for wrong arguments: the base class of its public ``BadParameter``.
_USAGE_ERRORS = tuple(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="modelaudit",
    help="Audit an image classifier for backdoors before anyone relies on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_PLAIN = str.maketrans("╭╮╰╯─│█", "++++-|#")


def invoke(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Errors of the user's are printed, not raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(arguments, prog_name="modelaudit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except InternalError as error:
        print(internal_error_text(str(error)), file=sys.stderr)
        if os.environ.get("MODELAUDIT_DEBUG"):
            print(error.details, file=sys.stderr)
    except ModelAuditError as error:
        where = f" while {error.stage}" if isinstance(error, WorkerError) and error.stage else ""
        print(f"modelaudit: error{where}: {error}", file=sys.stderr)
    except typer.Exit as exit_:
        return exit_.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except typer.Abort:
        print("modelaudit: aborted.", file=sys.stderr)
    except Exception as error:
        # typer may use click or a copy of its own; both errors know how to show themselves.
        if not isinstance(error, _USAGE_ERRORS):
            raise
        error.show()  # type: ignore[attr-defined]
    return EXIT_ERROR


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"modelaudit {__version__}")
        raise typer.Exit(0)


@app.command()
def scan(
    model: ModelArgument,
    clean_dir: CleanDirOption,
    labels: LabelsOption = None,
    arch: ArchOption = None,
    num_classes: NumClassesOption = None,
    preprocess: PreprocessOption = "auto",
    mean: MeanOption = None,
    std: StdOption = None,
    input_range: InputRangeOption = None,
    layout: LayoutOption = None,
    channel_order: ChannelOrderOption = None,
    image_size: ImageSizeOption = None,
    images_per_class: ImagesPerClassOption = 8,
    detector: DetectorOption = None,
    fast: FastOption = False,
    thorough: ThoroughOption = False,
    set_: SetOption = None,
    alpha: AlphaOption = 0.05,
    accuracy_floor: FloorOption = 0.5,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    examine: Annotated[
        list[str] | None,
        typer.Option(
            help="A published check beside the verdict, or all; repeatable. See `modelaudit "
            "detectors`.",
            metavar="NAME",
        ),
    ] = None,
    suspect_dir: Annotated[
        Path | None, typer.Option(help="Folder of inputs to examine (STRIP).", metavar="DIR")
    ] = None,
    train_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one folder of training images per class, to examine.", metavar="DIR"
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Report on stdout: text, json, html, markdown, sarif, junit, cyclonedx or intoto.",
        ),
    ] = "text",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write the report to a file; the extension says the format (.json, .txt, "
            ".html, .md, .sarif, .junit.xml, .cdx.json, .intoto.json); repeatable.",
            metavar="FILE",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Write pictures of a found pattern to this folder, as PNG.", metavar="DIR"
        ),
    ] = None,
    limit: LimitOption = None,
    isolation: IsolationOption = True,
    quiet: QuietOption = False,
) -> int:
    """Scan a classifier for backdoors.

    Exit codes: 0 no backdoor found, 1 backdoor found, 2 error, 3 inconclusive.
    """
    outputs = output or []
    _check_outputs(format_, outputs)
    if pictures is not None:
        _check_folder(pictures)
    from modelaudit.options import ScanOptions
    from modelaudit.preprocess_options import PreprocessOptions
    from modelaudit.progress import stage_progress
    from modelaudit.run import run_scan

    with _failure_reported(model, format_, outputs):
        limits = limits_of(limit, isolation)
        preprocessing = PreprocessOptions.parse(
            preprocess, mean, std, input_range, layout, channel_order
        )
        options = ScanOptions(
            model=model,
            clean_dir=clean_dir,
            labels=labels,
            arch=arch,
            num_classes=num_classes,
            preprocessing=preprocessing,
            image_size=parse_size(image_size),
            images_per_class=images_per_class,
            detectors=tuple(detector or ()),
            preset=preset_of(detector, fast, thorough),
            settings=parse_settings(set_ or []),
            alpha=alpha,
            accuracy_floor=accuracy_floor,
            device=device,
            seed=seed,
            examine=tuple(examine or ()),
            suspect_dir=suspect_dir,
            train_dir=train_dir,
        )
        with stage_progress(quiet) as progress:
            report = run_scan(options, limits, progress)
        problems = _write(report, outputs)
    if pictures is not None:
        from modelaudit.formats.picture_files import write_pictures

        problems += write_pictures(report, pictures)
    _print(report, format_, quiet)
    if problems:
        raise UsageError(" ".join(problems))
    return EXIT_CODES[report.verdict]


app.command()(screen)


@app.command()
def detectors() -> int:
    """List the detectors and their settings."""
    from modelaudit.listing import detectors_text

    print(detectors_text(), end="")
    return 0


@app.command()
def checks() -> int:
    """List the preflight checks: when each is raised, what that means, what to do."""
    from modelaudit.listing import checks_text

    print(checks_text(), end="")
    return 0


@app.command()
def inspect(
    model: ModelArgument,
    arch: ArchOption = None,
    num_classes: NumClassesOption = None,
    limit: LimitOption = None,
    isolation: IsolationOption = True,
    format_: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> int:
    """Say what a model file is: format, input, classes, operators; nothing is scanned."""
    from modelaudit.inspection import FORMATS
    from modelaudit.run import run_inspection

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: expected one of {', '.join(FORMATS)}.")
    inspection = run_inspection(model, arch, num_classes, limits_of(limit, isolation))
    print(FORMATS[format_](inspection), end="")
    return 0


@app.command()
def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="JSON list of labelled models.", metavar="MANIFEST")
    ],
    detector: DetectorOption = None,
    fast: FastOption = False,
    thorough: ThoroughOption = False,
    set_: SetOption = None,
    images_per_class: ImagesPerClassOption = 8,
    alpha: AlphaOption = 0.05,
    accuracy_floor: FloorOption = 0.5,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    jobs: Annotated[int, typer.Option(help="Scans at the same time.", min=1)] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            help="JSON report; finished models in it are not scanned again.", metavar="FILE"
        ),
    ] = None,
    limit: LimitOption = None,
    isolation: IsolationOption = True,
    quiet: QuietOption = False,
) -> int:
    """Scan a labelled collection: detections, false alarms, intervals, cost.

    Exit codes: 0 finished, 2 error (some model could not be scanned, or bad input).
    """
    if output is not None and output.suffix != ".json":
        raise UsageError(f"--output {output}: the evaluation report is JSON; expected *.json.")
    if output is not None:
        check_writable(output)
    from modelaudit.evaluate import EvaluateOptions, evaluation_text
    from modelaudit.evaluate import evaluate as run_evaluation
    from modelaudit.progress import fleet_progress

    options = EvaluateOptions(
        manifest=manifest,
        detectors=tuple(detector or ()),
        preset=preset_of(detector, fast, thorough),
        settings=parse_settings(set_ or []),
        images_per_class=images_per_class,
        alpha=alpha,
        accuracy_floor=accuracy_floor,
        device=device,
        seed=seed,
        jobs=jobs,
        output=output,
        limits=limits_of(limit, isolation),
    )
    with fleet_progress(quiet) as progress:
        evaluation = run_evaluation(options, progress)
    print(evaluation_text(evaluation, quiet), end="")
    return EXIT_ERROR if evaluation.errors else 0


def _check_outputs(format_: str, outputs: list[Path]) -> None:
    """Fail before the scan, not after it."""
    from modelaudit.formats import FORMATS, format_for

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: expected one of {', '.join(FORMATS)}.")
    for path in outputs:
        format_for(path)
        check_writable(path)


def _check_folder(path: Path) -> None:
    """Raise UsageError for a folder that cannot be written to nor be made."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"--pictures {path}: this is a file; give a folder.")
    parent = path if path.exists() else path.absolute().parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UsageError(f"--pictures {path}: {parent} is missing or cannot be written to.")


@contextmanager
def _failure_reported(model: Path, format_: str, outputs: list[Path]) -> Iterator[None]:
    """A scan that fails leaves a report too, in place of any older one; stderr gets the error."""
    try:
        yield
    except Exception as error:
        from modelaudit.failure import failure_of

        failure = failure_of(model, error)
        for problem in _write(failure, outputs):
            print(f"modelaudit: error: {problem}", file=sys.stderr)
        if format_ != "text":
            _print(failure, format_, quiet=False)
        raise


def _write(report: Report | Failure, outputs: list[Path]) -> list[str]:
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


def _print(report: Report | Failure, format_: str, quiet: bool) -> None:
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


__all__ = ["EXIT_CODES", "EXIT_ERROR", "app", "invoke", "parse_settings"]
