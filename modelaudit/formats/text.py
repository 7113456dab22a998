"""The report for a person at a terminal: verdict, target, evidence, next step at a glance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from modelaudit.failure import Failure
from modelaudit.formats.examinations_text import examination_parts
from modelaudit.formats.findings_text import finding_parts, looked_for_part
from modelaudit.formats.policy_text import policy_lines
from modelaudit.formats.reading import (
    found_by,
    most_suspicious,
    rejects,
    smallest_p,
    surest,
    suspicious_entries,
    was_stopped,
)
from modelaudit.formats.wording import (
    class_text,
    finding_name,
    next_step,
    origin_notes,
    p_text,
    paper_p_text,
    suspicious_text,
)
from modelaudit.isolation.limits import NOT_LIMITED
from modelaudit.report import DetectorReport, Report
from modelaudit.verdict import Verdict

_COLOURS = {
    Verdict.BACKDOORED: "red",
    Verdict.NO_BACKDOOR_FOUND: "green",
    Verdict.INCONCLUSIVE: "yellow",
}
_MOST_BARS = 12
_BAR_WIDTH = 32
_MOST_SOURCES = 5
_PLAIN_WIDTH = 100


def render_text(report: Report | Failure) -> str:
    """Plain text of at most 100 columns, without colours."""
    console = plain_console(_PLAIN_WIDTH)
    with console.capture() as capture:
        console.print(renderable(report))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def literal_console(**options: Any) -> Console:
    """A rich console on which text is text: no markup, no emoji codes, no guessed highlights."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def plain_console(width: int) -> Console:
    """A literal console without colours."""
    return literal_console(width=width, color_system=None, force_terminal=False)


def renderable(report: Report | Failure) -> RenderableType:
    """The report for a rich console, which decides about width and colour."""
    if isinstance(report, Failure):
        return _failure(report)
    parts: list[RenderableType] = [_headline(report), _facts(report)]
    if report.detectors:
        parts += ["", _evidence(report)]
    for detector in surest(report):
        parts += ["", *_pattern_sizes(report, detector)]
    for finding in report.findings:
        parts += ["", *finding_parts(finding)]
    if report.verdict is Verdict.NO_BACKDOOR_FOUND:
        parts += ["", looked_for_part(report)]
    parts += examination_parts(report.examinations)
    parts += [*_remarks(report), "", Text.assemble(("Next: ", "bold"), next_step(report))]
    return Group(*parts)


def _failure(failure: Failure) -> Panel:
    lines = [
        Text("NO VERDICT", style="bold red"),
        Text(f"The scan of {failure.model.path} failed while {failure.error.stage}."),
        Text(f"{failure.error.kind}: {failure.error.message}"),
        *map(Text, policy_lines(failure)),
    ]
    return Panel(Group(*lines), border_style="red", expand=False, title="modelaudit")


def _headline(report: Report) -> Panel:
    colour = _COLOURS[report.verdict]
    lines = [Text(report.verdict.upper(), style=f"bold {colour}")]
    for finding in report.findings:
        found = found_by(report, finding)
        p = min(d.p_holm for d in found if d.p_holm is not None)
        by = ", ".join(d.detector for d in found)
        lines.append(
            Text.assemble((finding_name(finding), "bold"), f"   p = {p_text(p)}   found by {by}")
        )
    lines += [Text(reason) for reason in report.reasons]
    lines += [Text(str(report.cut_short))] if report.cut_short else []
    if report.verdict is Verdict.NO_BACKDOOR_FOUND:
        alpha = report.settings["alpha"]
        lines.append(Text(f"smallest p = {p_text(smallest_p(report))}, not below alpha = {alpha}"))
    lines += [Text(line) for line in policy_lines(report)]
    return Panel(Group(*lines), border_style=colour, expand=False, title="modelaudit")


def _facts(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    model, images = report.model, report.images
    shape = "x".join(map(str, model.input_shape))
    table.add_row(
        "Model",
        f"{model.path}  ({model.format}, {len(model.classes)} classes, input {shape}, "
        f"sha256 {model.sha256[:12]})",
    )
    table.add_row("Class names", f"from {model.sources['labels']}")
    accuracy = "not measured" if images.accuracy is None else f"{images.accuracy:.1%}"
    table.add_row(
        "Images",
        f"{images.total} of {len(images.counts)} classes from {images.directory}; "
        f"clean accuracy {accuracy} on {images.pool}",
    )
    used = model.preprocessing
    chosen = used.chosen if used.chosen == "auto" else f"from {used.chosen}"
    table.add_row("Preprocessing", f"{used.name} ({chosen}{_alternatives(report)})")
    passes = f"{report.image_passes:,.0f} image-passes, {report.seconds:.1f} s"
    table.add_row("Cost", f"{passes} on {report.environment['device']}")
    return table


def _alternatives(report: Report) -> str:
    used = report.model.preprocessing
    others = [
        f"{t.name} {t.accuracy:.0%}"
        for t in used.tried
        if t.name != used.name and t.accuracy is not None
    ]
    return f"; clean accuracy of others: {', '.join(others)}" if others else ""


def _evidence(report: Report) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("Detector", no_wrap=True)
    table.add_column("Most suspicious", overflow="fold")
    for name in ("p (Holm)", "p calibrated", "p paper", "Passes", "Seconds"):
        table.add_column(name, justify="right", min_width=len(name))
    for d in report.detectors:
        style = "red" if rejects(report, d) else ""
        numbers = (p_text(d.p_holm), p_text(d.p_calibrated), paper_p_text(d))
        cost = (f"{d.image_passes:,.0f}", f"{d.seconds:.1f}")
        table.add_row(d.detector, suspicious_text(report, d), *numbers, *cost, style=style)
    return table


def _pattern_sizes(report: Report, detector: DetectorReport) -> Iterable[RenderableType]:
    """Bar chart of pattern sizes (or statistics), the most suspicious first; source classes."""
    rows = most_suspicious(detector)
    values = [one.size if detector.by_size else one.statistic for one in rows]
    largest = max((value for value in values if value is not None), default=1.0) or 1.0
    title = "Pattern size" if detector.by_size else "Statistic"
    yield Text.assemble(
        (f"{title} per target class", "bold"), f"  ({detector.detector}; {detector.unit})"
    )
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for one, value in list(zip(rows, values, strict=True))[:_MOST_BARS]:
        style = "red" if one.target in suspicious_entries(report, detector) else ""
        name = class_text(report, detector, one.target)
        missing = "larger" if was_stopped(detector, one) else "none found"
        number = missing if value is None else f"{value:.3g}"
        length = 0 if value is None else max(1, round(_BAR_WIDTH * value / largest))
        table.add_row(f"  {name}", "█" * length, number, style=style)
    yield table
    if len(rows) > _MOST_BARS:
        yield f"  ... and {len(rows) - _MOST_BARS} less suspicious ones"
    weights = list(detector.sources.values())
    if not weights or (len(weights) > 1 and len(set(weights)) == 1):  # equal ones say nothing
        return
    heaviest = sorted(detector.sources.items(), key=lambda item: -item[1])[:_MOST_SOURCES]
    listed = ", ".join(f"{s} ({report.model.classes[int(s)]}) {w:.2f}" for s, w in heaviest)
    more = len(detector.sources) - len(heaviest)
    yield Text.assemble(
        ("Source classes by weight  ", "bold"), listed + (f", {more} more" if more > 0 else "")
    )


def _remarks(report: Report) -> Iterable[RenderableType]:
    remarks = [
        f"{c.status}: {c.message}" for c in report.preflight if c.status in ("note", "warning")
    ]
    remarks += [f"note: {note}" for note in report.model.notes]
    remarks += [f"warning: {warning}" for warning in report.images.warnings]
    remarks += [f"note: {d.detector}: {note}" for d in report.detectors for note in d.notes]
    remarks += [f"note: {note}" for note in origin_notes(report)]
    remarks += [
        f"note: isolation, {name}: {done}"
        for name, done in report.environment.get("isolation", {}).items()
        if done.startswith(NOT_LIMITED)
    ]
    if remarks:
        yield ""
        yield from (Text(f"- {remark}", style="dim") for remark in dict.fromkeys(remarks))
