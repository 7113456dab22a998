"""The command line: parse, call, print, exit. Nothing here imports torch until it is needed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelaudit import __version__
from modelaudit.errors import (
    InternalError,
    ModelAuditError,
    UsageError,
    WorkerError,
    internal_error_text,
)
from modelaudit.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from modelaudit.failure import Failure
    from modelaudit.isolation.limits import Limits
    from modelaudit.report import Report

EXIT_CODES: Mapping[str, int] = {"no-backdoor-found": 0, "backdoored": 1, "inconclusive": 3}
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

ModelArgument = Annotated[
    Path,
    typer.Argument(help="ONNX, TorchScript, safetensors or PyTorch state dict.", metavar="MODEL"),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        help="For weights without a graph: a torchvision model, or package.module:factory of your "
        "own code, which is then run."
    ),
]
NumClassesOption = Annotated[
    int | None, typer.Option(help="Number of outputs, for weights without a graph.", min=2)
]
DetectorOption = Annotated[
    list[str] | None,
    typer.Option(help="Detector to run; repeatable. See `modelaudit detectors`."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="DETECTOR.KEY=VALUE", help="A setting of a detector; repeatable."
    ),
]
ImagesPerClassOption = Annotated[
    int, typer.Option(help="Clean images per class; fewer is possible, more sees more.", min=1)
]
AlphaOption = Annotated[
    float, typer.Option(help="Largest acceptable probability of refusing a clean model.")
]
FloorOption = Annotated[
    float,
    typer.Option(
        help="Accuracy on the clean images below which the verdict is inconclusive.", min=0, max=1
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Limit of the process that runs the model: memory=8G, cpu-time=2h, stall=15m, "
        "open-files=512, file-size=64M; repeatable.",
    ),
]
IsolationOption = Annotated[
    bool,
    typer.Option(
        "--isolation/--no-isolation",
        help="Run the model in a process of its own with limits and without network. Without, "
        "it runs in this process, for debuggers.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, and one line instead of the text report."),
]


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
    clean_dir: Annotated[
        Path,
        typer.Option(help="Folder with one folder of clean images per class.", metavar="DIR"),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Class names in output order: one per line, or JSON id2label.", metavar="FILE"
        ),
    ] = None,
    arch: ArchOption = None,
    num_classes: NumClassesOption = None,
    preprocess: Annotated[
        str,
        typer.Option(
            help="auto tries the usual ones and keeps what classifies best; or a name: as-is, "
            "imagenet, cifar10, half, 0-255, bgr, ..."
        ),
    ] = "auto",
    mean: Annotated[
        str | None, typer.Option(help="Channel means in [0, 1] units, e.g. 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Channel standard deviations in [0, 1] units.")
    ] = None,
    input_range: Annotated[
        str | None, typer.Option(help="Range of the model's input: 0-1 or 0-255.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the model's input: NCHW or NHWC.")
    ] = None,
    channel_order: Annotated[
        str | None, typer.Option(help="Order of the model's colour channels: RGB or BGR.")
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Input size where the model does not state it: N or HxW.", metavar="SIZE"
        ),
    ] = None,
    images_per_class: ImagesPerClassOption = 8,
    detector: DetectorOption = None,
    set_: SetOption = None,
    alpha: AlphaOption = 0.05,
    accuracy_floor: FloorOption = 0.5,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    format_: Annotated[
        str, typer.Option("--format", help="Report on stdout: text or json.")
    ] = "text",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write the report to a file; the extension says the format (.json, .txt); "
            "repeatable.",
            metavar="FILE",
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
    from modelaudit.options import ScanOptions
    from modelaudit.preprocess_options import PreprocessOptions
    from modelaudit.progress import stage_progress
    from modelaudit.run import run_scan

    with _failure_reported(model, format_, outputs):
        limits = _limits(limit, isolation)
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
            image_size=_parse_size(image_size),
            images_per_class=images_per_class,
            detectors=tuple(detector or ()),
            settings=parse_settings(set_ or []),
            alpha=alpha,
            accuracy_floor=accuracy_floor,
            device=device,
            seed=seed,
        )
        with stage_progress(quiet) as progress:
            report = run_scan(options, limits, progress)
    problems = _write(report, outputs)
    _print(report, format_, quiet)
    if problems:
        raise UsageError(" ".join(problems))
    return EXIT_CODES[report.verdict]


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
    inspection = run_inspection(model, arch, num_classes, _limits(limit, isolation))
    print(FORMATS[format_](inspection), end="")
    return 0


@app.command()
def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="JSON list of labelled models.", metavar="MANIFEST")
    ],
    detector: DetectorOption = None,
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
        settings=parse_settings(set_ or []),
        images_per_class=images_per_class,
        alpha=alpha,
        accuracy_floor=accuracy_floor,
        device=device,
        seed=seed,
        jobs=jobs,
        output=output,
        limits=_limits(limit, isolation),
    )
    with fleet_progress(quiet) as progress:
        evaluation = run_evaluation(options, progress)
    print(evaluation_text(evaluation, quiet), end="")
    return EXIT_ERROR if evaluation.errors else 0


def parse_settings(texts: list[str]) -> dict[str, dict[str, str]]:
    """``DETECTOR.KEY=VALUE`` texts as detector -> key -> value.

    Raises:
        UsageError: a text of another form.
    """
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        detector, dot, key = left.strip().partition(".")
        if not (equals and dot and detector and key):
            raise UsageError(
                f"--set {text}: expected DETECTOR.KEY=VALUE, e.g. l-red.schedule=paper."
            )
        settings.setdefault(detector, {})[key] = value.strip()
    return settings


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """``32`` or ``32x48`` (height x width) in pixels."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 8192 for part in parts):
        raise UsageError(f"--image-size {text}: expected N or HxW in pixels, e.g. 224 or 32x48.")
    height, width = int(parts[0]), int(parts[-1])
    return height, width


def _check_outputs(format_: str, outputs: list[Path]) -> None:
    """Fail before the scan, not after it."""
    from modelaudit.formats import FORMATS, format_for

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: expected one of {', '.join(FORMATS)}.")
    for path in outputs:
        format_for(path)
        check_writable(path)


def check_writable(path: Path) -> None:
    """Raise UsageError for an output file that cannot be written; nothing is created."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--output {path}: there is no folder {folder}.")
    if path.is_dir():
        raise UsageError(f"--output {path}: this is a folder; give a file name.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--output {path}: no permission to write there.")


def _limits(texts: list[str] | None, isolation: bool) -> Limits | None:
    """The limits of the worker process; ``None`` without one."""
    from modelaudit.isolation.limits import Limits

    if texts and not isolation:
        raise UsageError("--limit needs the process of its own that --no-isolation switches off.")
    return Limits.parse(texts or []) if isolation else None


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
    from modelaudit.formats.text import literal_console, renderable, summary_line

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
