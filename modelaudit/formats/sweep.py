"""The summary of a sweep for a person at a terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelaudit.fleet.sweep_summary import SweepSummary, SweptModel
from modelaudit.formats.extensions import by_extension
from modelaudit.formats.markdown import SIGNS, escape, table_lines
from modelaudit.formats.policy_text import is_waived, policy_lines
from modelaudit.formats.text import plain_console
from modelaudit.formats.wording import p_text
from modelaudit.plain import printable

_FAILED = "❌"
_WIDTH = 110
_HEAD = ("Model", "Verdict", "Target", "p", "Seconds")


def sweep_text(summary: SweepSummary) -> str:
    """Plain text of at most 110 columns."""
    console = plain_console(_WIDTH)
    with console.capture() as capture:
        console.print(Group(*_parts(summary)))
    lines = (line.rstrip() for line in capture.get().splitlines())
    return printable("\n".join(lines), lines=True) + "\n"


def sweep_json(summary: SweepSummary) -> str:
    """The whole summary, indented, in ASCII: names of files may be no text."""
    return json.dumps(summary.to_dict(), indent=2, allow_nan=False) + "\n"


def sweep_markdown(summary: SweepSummary) -> str:
    """GitHub's and GitLab's Markdown; nothing in it that a model's author wrote is active."""
    rows = [
        (one.name, f"{SIGNS.get(one.verdict, _FAILED)} {_verdict(one)}", *_numbers(one))
        for one in summary.models
    ]
    lines = [
        f"### modelaudit sweep: {escape(sweep_line(summary))}",
        "",
        *table_lines(_HEAD, rows),
    ]
    if remarks := [f"- {escape(remark)}" for remark in _remarks(summary)]:
        lines += ["", *remarks]
    return printable("\n".join(lines), lines=True) + "\n"


def sweep_line(summary: SweepSummary) -> str:
    """One line, for ``--quiet``."""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in summary.counts.items())
    missing = summary.total - len(summary.models)
    waived = f", {summary.waived} waived" if summary.waived else ""
    unknown = f", {missing} not scanned yet" if missing else ""
    return printable(f"{summary.source}: {counts}{waived}{unknown}")


#: Name (as in ``sweep --format``) -> renderer.
SUMMARY_FORMATS: Mapping[str, Callable[[SweepSummary], str]] = MappingProxyType(
    {"text": sweep_text, "json": sweep_json, "markdown": sweep_markdown}
)
_EXTENSIONS = {".txt": sweep_text, ".json": sweep_json, ".md": sweep_markdown}


def summary_format_for(path: Path) -> Callable[[SweepSummary], str]:
    """The renderer for an output file.

    Raises:
        UsageError: no format has that extension.
    """
    return by_extension(_EXTENSIONS, path, "a summary")


def _parts(summary: SweepSummary) -> Iterable[RenderableType]:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for name in _HEAD:
        number = name in ("p", "Seconds")
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for one in summary.models:
        table.add_row(one.name, _verdict(one), *_numbers(one))
    yield table
    yield ""
    yield Text(sweep_line(summary), style="bold")
    yield from (Text(f"- {remark}") for remark in _remarks(summary))


def _verdict(one: SweptModel) -> str:
    return f"{one.verdict} (waived)" if is_waived(one) else one.verdict


def _numbers(one: SweptModel) -> tuple[str, str, str]:
    target = one.targets[0] if one.targets else None
    more = f" and {len(one.targets) - 1} more" if len(one.targets) > 1 else ""
    named = f"{target.index} ({target.name}){more}" if target else "-"
    return named, p_text(one.p), f"{one.seconds:.1f}" if one.error is None else "-"


def _remarks(summary: SweepSummary) -> Iterable[str]:
    for one in summary.models:
        if one.error is not None:
            yield f"{one.name}: error while {one.error.stage}: {one.error.message}"
        yield from (f"{one.name}: {reason}" for reason in one.reasons)
        if one.cut_short is not None:
            yield f"{one.name}: {one.cut_short}"
        yield from (f"{one.name}: {line}" for line in policy_lines(one))
        if one.others:
            yield f"{one.name}: not scanned, as other formats of it: {', '.join(one.others)}"
