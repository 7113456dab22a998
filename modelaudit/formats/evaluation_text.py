"""The results of an evaluation for a terminal."""

from __future__ import annotations

import re

from rich.table import Table

from modelaudit.fleet.evaluation import Evaluation
from modelaudit.formats.evaluation_tables import (
    INTERVALS,
    TextTable,
    attack_table,
    cost_line,
    left_open,
    sign_notes,
    sign_table,
    summary_line,
)
from modelaudit.formats.text import plain_console
from modelaudit.plain import printable

#: Of the text, of the widest table, and of a column with numbers in it, in characters.
_WIDTH, _WIDEST, _COLUMN = 128, 1000, 8


def evaluation_text(evaluation: Evaluation, quiet: bool = False) -> str:
    """Tables for a person; one line when ``quiet``."""
    if quiet:
        return summary_line(evaluation) + "\n"
    table = _drawn(attack_table(evaluation), right=2)
    console = plain_console(max(_WIDTH, _width_of(table)))  # a table with columns cut off is none
    with console.capture() as capture:
        console.print(table)
        console.print(f"\n{summary_line(evaluation)}")
        console.print(f"{cost_line(evaluation)}. {INTERVALS}")
        console.print(left_open(evaluation))
        if signs := sign_table(evaluation):
            console.print("\nBeside the verdict: in how many models a published check says yes")
            console.print(_drawn(signs))
        for note in sign_notes(evaluation):
            console.print(f"- {note}")
        for outcome in evaluation.errors:
            console.print(f"error: {outcome.name}: {outcome.error}")
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
    return printable(text, lines=True)


def _width_of(table: Table) -> int:
    """What it takes, in characters."""
    return plain_console(_WIDEST).measure(table).maximum


def _drawn(table: TextTable, right: int = 0) -> Table:
    """The table with narrow columns, the last ``right`` of them flush right."""
    drawn = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    drawn.add_column(table.head[0], no_wrap=True)
    for index, name in enumerate(table.head[1:], start=1):
        flush = index >= len(table.head) - right
        drawn.add_column(_stacked(name), no_wrap=True, justify="right" if flush else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _stacked(name: str) -> str:
    """A column's head in short lines, broken after hyphens and commas: there are many columns."""
    lines = [""]
    for part in re.findall(r"[^-,]+[-,]?", name):
        if len(lines[-1] + part) > _COLUMN:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines if line)
