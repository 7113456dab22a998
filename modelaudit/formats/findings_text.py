"""What was found, and what would have been found, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelaudit.evidence import FindingReport, of_size
from modelaudit.formats.terminal_pictures import PictureStrip
from modelaudit.formats.wording import bound_text, finding_name, flips_text
from modelaudit.report import Report

#: Pictures that a terminal shows, side by side.
_SHOWN = ("clean", "stamped", "difference")


def finding_parts(finding: FindingReport) -> Iterable[RenderableType]:
    """How often the found pattern works and, in a colour terminal, how it looks."""
    size = of_size(finding.size, finding.unit, with_unit=False)
    title = f"Pattern{size} for {finding_name(finding)}"
    words = ", ".join(filter(None, (flips_text(finding), finding.note)))
    yield Text.assemble((title, "bold"), f"  {words}")
    pictures = {picture.kind: picture for picture in finding.pictures}
    if shown := [pictures[kind] for kind in _SHOWN if kind in pictures]:
        yield PictureStrip(tuple(shown))


def looked_for_part(report: Report) -> Table:
    """Per detector: which attacks, and how strong one had to be to be seen."""
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for name in ("Looked for", "By", "Seen", "Smallest found"):
        table.add_column(name, overflow="fold")
    for entry in report.looked_for:
        smallest = "-" if entry.smallest is None else f"{entry.smallest:.3g}"
        table.add_row(entry.sees, entry.detector, bound_text(entry), smallest)
    return table
