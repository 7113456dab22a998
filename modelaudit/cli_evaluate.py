"""``modelaudit evaluate``: what is found in a labelled collection?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli_fleet import Machines, fleet_options
from modelaudit.cli_groups import Running, Search
from modelaudit.cli_options import check_writable
from modelaudit.errors import UsageError
from modelaudit.exit_codes import EXIT_ERROR


def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="JSON list of labelled models.", metavar="MANIFEST")
    ],
    search: Search,
    machines: Machines,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            help="JSON report; finished models in it are not scanned again.", metavar="FILE"
        ),
    ] = None,
    running: Running,
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
        output=output,
        **fleet_options(search, machines, running),
    )
    with fleet_progress(running.quiet) as progress:
        evaluation = run_evaluation(options, progress)
    print(evaluation_text(evaluation, running.quiet), end="")
    return EXIT_ERROR if evaluation.errors else 0
