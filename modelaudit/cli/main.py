"""The command line: parse, call, print, exit. Nothing here imports torch until it is needed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from modelaudit import __version__
from modelaudit.cli.config import config
from modelaudit.cli.evaluate import evaluate
from modelaudit.cli.flags import prepared
from modelaudit.cli.fleet import FleetCommand
from modelaudit.cli.groups import expanded
from modelaudit.cli.options import (
    ArchOption,
    IsolationOption,
    LimitOption,
    ModelArgument,
    NumClassesOption,
    check_format,
    limits_of,
)
from modelaudit.cli.report import print_error
from modelaudit.cli.scan import scan
from modelaudit.cli.screen import screen
from modelaudit.cli.settings import Session, configure, origin_of_error
from modelaudit.cli.sweep import sweep
from modelaudit.errors import ModelAuditError, ScanInterrupted
from modelaudit.exit_codes import EXIT_CODES, EXIT_ERROR, EXIT_INTERRUPTED

#: What typer raises for wrong arguments: the base class of its public ``BadParameter``.
_USAGE_ERRORS = tuple(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_INTERRUPTED = "modelaudit: interrupted; what a fleet had finished is in its report."

app = typer.Typer(
    name="modelaudit",
    help="Audit an image classifier for backdoors before anyone relies on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def invoke(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Errors of the user's are printed, not raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    session = Session(help="--help" in given)
    try:
        result = prepared(app)(given, prog_name="modelaudit", standalone_mode=False, obj=session)
        return result if isinstance(result, int) else 0
    except ScanInterrupted as interruption:
        print(f"modelaudit: {interruption}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ModelAuditError as error:
        print_error(error)
    except typer.Exit as exit_:
        return exit_.exit_code
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return EXIT_INTERRUPTED
    except typer.Abort:
        print("modelaudit: aborted.", file=sys.stderr)
    except Exception as error:
        # typer may use click or a copy of its own; both errors know how to show themselves.
        if not isinstance(error, _USAGE_ERRORS):
            raise
        error.show()  # type: ignore[attr-defined]
        if origin := origin_of_error(error):
            print(origin, file=sys.stderr)
    return EXIT_ERROR


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Take settings from this file, not from modelaudit.toml or pyproject.toml in the "
            "working folder or above it.",
            metavar="FILE",
            envvar="MODELAUDIT_CONFIG",
        ),
    ] = None,
    no_config: Annotated[
        bool,
        typer.Option(
            "--no-config", help="Take settings from no file.", envvar="MODELAUDIT_NO_CONFIG"
        ),
    ] = False,
) -> None:
    if version:
        print(f"modelaudit {__version__}")
        raise typer.Exit(0)
    configure(context, config, no_config)


app.command()(expanded(scan))
app.command()(expanded(screen))


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

    check_format(format_, FORMATS)
    inspection = run_inspection(model, arch, num_classes, limits_of(limit, isolation))
    print(FORMATS[format_](inspection), end="")
    return 0


app.command(cls=FleetCommand)(expanded(evaluate))
app.command(cls=FleetCommand)(expanded(sweep))
app.command()(config)

__all__ = ["EXIT_CODES", "EXIT_ERROR", "app", "invoke"]
