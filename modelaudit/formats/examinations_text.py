"""The examinations of a scan, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelaudit.examination_report import ExaminationReport


def examination_parts(examinations: Sequence[ExaminationReport]) -> Iterable[RenderableType]:
    """What each of them saw, or why it was skipped; nothing where there are none."""
    if not examinations:
        return
    yield ""
    yield Text.assemble(
        ("Examinations", "bold"), "  (evidence beside the verdict, which they do not change)"
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in examinations:
        seen = one.summary if one.status == "done" else f"skipped: {one.reason}"
        table.add_row(f"  {one.name}", seen)
        for note in one.notes:
            table.add_row("", f"note: {note}")
    yield table
