"""``modelaudit evaluate``: what is found in a labelled collection?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelaudit.cli.fleet import Machines, fleet_options
from modelaudit.cli.groups import Running, Search
from modelaudit.cli.long import Budget
from modelaudit.cli.options import ExamineOption, check_writable
from modelaudit.exit_codes import EXIT_ERROR


def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="JSON list of labelled models.", metavar="MANIFEST")
    ],
    search: Search,
    machines: Machines,
    *,
    examine: ExamineOption = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write the results to a file (.json, .html, .md, .txt); repeatable. Finished "
            "models in a JSON one are not scanned again.",
            metavar="FILE",
        ),
    ] = None,
    budget: Budget,
    running: Running,
) -> int:
    """Scan a labelled collection: detections, false alarms, intervals, cost.

    Exit codes: 0 finished, 2 error (some model could not be scanned, or bad input), 130
    interrupted.
    """
    outputs = tuple(output or ())
    for path in outputs:
        check_writable(path)
    from modelaudit.fleet.evaluate import EvaluateOptions
    from modelaudit.fleet.evaluate import evaluate as run_evaluation
    from modelaudit.formats.evaluation_files import evaluation_format_for
    from modelaudit.formats.evaluation_text import evaluation_text
    from modelaudit.progress import fleet_progress

    for path in outputs:
        evaluation_format_for(path)
    options = EvaluateOptions(
        manifest=manifest,
        outputs=outputs,
        examine=tuple(examine or ()),
        **fleet_options(search, machines, budget, running),
    )
    with fleet_progress(running.quiet) as progress:
        evaluation = run_evaluation(options, progress)
    print(evaluation_text(evaluation, running.quiet), end="")
    return EXIT_ERROR if evaluation.errors else 0
