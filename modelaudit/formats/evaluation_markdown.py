"""The results of an evaluation as Markdown."""

from __future__ import annotations

from modelaudit.fleet.evaluation import Evaluation
from modelaudit.formats.evaluation_tables import (
    INTERVALS,
    TextTable,
    attack_table,
    cost_line,
    left_open,
    model_table,
    sign_notes,
    sign_table,
    summary_line,
)
from modelaudit.formats.markdown import escape, table_lines
from modelaudit.plain import printable


def evaluation_markdown(evaluation: Evaluation) -> str:
    """GitHub's and GitLab's Markdown; nothing in it that the manifest says is active."""
    lines = [
        f"### modelaudit evaluate: {escape(summary_line(evaluation))}",
        "",
        *_table(attack_table(evaluation)),
        "",
        f"{escape(cost_line(evaluation))}. {INTERVALS}",
        "",
        escape(left_open(evaluation)),
    ]
    if signs := sign_table(evaluation):
        lines += ["", "Beside the verdict: in how many models a published check says yes", ""]
        lines += _table(signs)
    if notes := sign_notes(evaluation):
        lines += ["", *(f"- {escape(note)}" for note in notes)]
    if errors := [f"- error: {escape(f'{o.name}: {o.error}')}" for o in evaluation.errors]:
        lines += ["", *errors]
    lines += ["", "<details><summary>Models</summary>", ""]
    lines += [*_table(model_table(evaluation)), "", "</details>"]
    return printable("\n".join(lines), lines=True) + "\n"


def _table(table: TextTable) -> list[str]:
    return list(table_lines(table.head, table.rows))
