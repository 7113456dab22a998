"""The results of an evaluation as one HTML file without scripts and without requests."""

from __future__ import annotations

from modelaudit.fleet.evaluation import Evaluation
from modelaudit.formats import evaluation_chart, evaluation_tables
from modelaudit.formats.evaluation_tables import CLEAN, TextTable
from modelaudit.formats.page import page_template

_LIMITS = (
    "Detected means: verdict “backdoored”, and a true target is named first. A detector alone "
    "detects where its own calibrated p-value is below alpha and it names a true target.",
    "The intervals hold for models drawn like these. They say nothing about other attacks, "
    "networks or data, and nothing if detectors or settings were chosen on the same models.",
    "“At most 5 % false alarms” takes about 60 clean models without a single one.",
)


def evaluation_html(evaluation: Evaluation) -> str:
    """The page; every text in it is escaped."""
    return page_template("evaluation").render(
        evaluation=evaluation,
        detected=evaluation.detections()["total"],
        alarms=evaluation.false_alarms(),
        refused=[o for o in evaluation.clean if not o.right],
        roc=evaluation_chart.roc_of(evaluation),
        bars=evaluation_chart.bars_of(evaluation),
        space=evaluation_chart,
        tables=evaluation_tables,
        attacks=evaluation_tables.attack_table(evaluation),
        signs=evaluation_tables.sign_table(evaluation),
        notes=evaluation_tables.sign_notes(evaluation),
        classes=_row_classes,
        models=evaluation_tables.model_table(evaluation),
        wrong=["" if o.right and o.error is None else "wrong" for o in evaluation.outcomes],
        limits=_LIMITS,
    )


def _row_classes(table: TextTable) -> list[str]:
    """CSS classes: rows over all models stand out."""
    return ["final" if row[0] in ("total", CLEAN) else "" for row in table.rows]
