"""The report of a screening for a person at a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelaudit.formats.text import plain_console
from modelaudit.formats.wording import summary_line
from modelaudit.screen_report import ScreenReport

_WIDTH = 100
_MOST_UNFLAGGED = 10
_MOST_UNREADABLE = 10


def screen_text(report: ScreenReport) -> str:
    """Plain text of at most 100 columns."""
    console = plain_console(_WIDTH)
    with console.capture() as capture:
        console.print(Group(*_parts(report)))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def screen_json(report: ScreenReport) -> str:
    """The whole report, indented, UTF-8."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def screen_line(report: ScreenReport) -> str:
    """One line, for ``--quiet``."""
    return f"{len(report.flagged)} of {len(report.inputs)} inputs flagged in {report.directory}"


#: Name (as in ``screen --format``) -> renderer.
FORMATS: Mapping[str, Callable[[ScreenReport], str]] = MappingProxyType(
    {"text": screen_text, "json": screen_json}
)


def _parts(report: ScreenReport) -> Iterable[RenderableType]:
    yield Text(screen_line(report), style="bold")
    yield Text(
        f"At most {report.false_rejection_rate:.0%} of clean inputs are flagged if they are like "
        f"the {report.clean_images} clean images."
    )
    yield Text(f"Scan of the model: {summary_line(report.scan)}")
    yield ""
    yield _table(report)
    more = len(report.inputs) - len(report.flagged) - _MOST_UNFLAGGED
    if more > 0:
        yield Text(f"... and {more} more that are not flagged; --format json has all")
    yield ""
    for check in report.checks:
        clean = f"clean images {check.mean:.3g}, deviation {check.std:.3g}"
        yield Text(f"- {check.name}: {check.meaning} ({clean})")
    yield from (Text(f"- skipped: {reason}") for reason in report.skipped)
    yield from (
        Text(f"- not read: {one.file}: {one.reason}")
        for one in report.unreadable[:_MOST_UNREADABLE]
    )
    if len(report.unreadable) > _MOST_UNREADABLE:
        yield Text(f"- {len(report.unreadable)} files were not read in all")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(report: ScreenReport) -> Table:
    """The flagged inputs and the most suspicious others."""
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("Input", overflow="fold")
    table.add_column("Taken for", overflow="fold")
    table.add_column("p", justify="right")
    for check in report.checks:
        table.add_column(check.name, justify="right")
    for one in report.inputs[: len(report.flagged) + _MOST_UNFLAGGED]:
        scores = (_score(one.scores.get(check.name)) for check in report.checks)
        name = f"{one.prediction.index} ({one.prediction.name})"
        table.add_row("TRIGGER?" if one.flagged else "", one.file, name, f"{one.p:.3f}", *scores)
    return table
