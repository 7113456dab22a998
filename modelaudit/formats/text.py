"""The report for a person at a terminal: verdict, target, evidence, next step at a glance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from modelaudit.failure import Failure
from modelaudit.isolation.limits import NOT_LIMITED
from modelaudit.report import ClassReport, DetectorReport, Report
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
    for detector in _shown(report):
        parts += ["", *_pattern_sizes(report, detector)]
    parts += [*_remarks(report), "", Text.assemble(("Next: ", "bold"), next_step(report))]
    return Group(*parts)


def summary_line(report: Report | Failure) -> str:
    """The verdict in one line, for ``--quiet``."""
    if isinstance(report, Failure):
        return f"{report.verdict}: {report.model.path}: {report.error.message}"
    line = f"{report.verdict}: {report.model.path}"
    if report.targets:
        names = ", ".join(f"{t.index} ({t.name})" for t in report.targets)
        line += f": target class {names}, p = {_p(_smallest_p(report))}"
    elif report.reasons:
        line += f": {report.reasons[0]}"
    elif report.detectors:
        line += f": smallest p = {_p(_smallest_p(report))}"
    return line


def next_step(report: Report) -> str:
    """What to do with this verdict, in a sentence or two."""
    if report.verdict is Verdict.BACKDOORED:
        return (
            "do not use this model. Ask its author how it was trained, get it from another source, "
            "or retrain it; scan again with other clean images (--seed) to see the same target."
        )
    if report.verdict is Verdict.INCONCLUSIVE:
        advice = dict.fromkeys(c.advice for c in report.preflight if c.status == "inconclusive")
        return " ".join(filter(None, advice)) or "look at the reasons above; more images may help."
    return (
        "no evidence of the attacks that were looked for; this is not proof of absence. More clean "
        "images per class (--images-per-class) see fainter patterns."
    )


def _failure(failure: Failure) -> Panel:
    lines = [
        Text("NO VERDICT", style="bold red"),
        Text(f"The scan of {failure.model.path} failed while {failure.error.stage}."),
        Text(f"{failure.error.kind}: {failure.error.message}"),
    ]
    return Panel(Group(*lines), border_style="red", expand=False, title="modelaudit")


def _headline(report: Report) -> Panel:
    colour = _COLOURS[report.verdict]
    lines = [Text(report.verdict.upper(), style=f"bold {colour}")]
    for target in report.targets:
        found = [d for d in report.detectors if d.target == target and _rejects(report, d)]
        p = min(d.p_holm for d in found if d.p_holm is not None)
        by = ", ".join(d.detector for d in found)
        lines.append(
            Text.assemble(
                "target class ",
                (f"{target.index} ({target.name})", "bold"),
                f"   p = {_p(p)}   found by {by}",
            )
        )
    lines += [Text(reason) for reason in report.reasons]
    if report.verdict is Verdict.NO_BACKDOOR_FOUND:
        alpha = report.settings["alpha"]
        lines.append(Text(f"smallest p = {_p(_smallest_p(report))}, not below alpha = {alpha}"))
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
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for name in ("Detector", "Most suspicious"):
        table.add_column(name, overflow="fold")
    for name in ("p (Holm)", "p calibrated", "p paper", "Passes", "Seconds"):
        table.add_column(name, justify="right")
    for d in report.detectors:
        style = "red" if _rejects(report, d) else ""
        target = f"{d.target.index} ({d.target.name})" if d.target else d.reason
        numbers = (_p(d.p_holm), _p(d.p_calibrated), _paper_p(d))
        cost = (f"{d.image_passes:,.0f}", f"{d.seconds:.1f}")
        table.add_row(d.detector, target, *numbers, *cost, style=style)
    return table


def _shown(report: Report) -> list[DetectorReport]:
    """Detectors worth a bar chart: per target found the surest; else the one with the least p."""
    with_p = sorted((d for d in report.detectors if d.p_holm is not None), key=_sort_key)
    found = [d for d in with_p if _rejects(report, d)]
    surest: dict[int, DetectorReport] = {}
    for detector in found:
        if detector.target is not None:
            surest.setdefault(detector.target.index, detector)
    return list(surest.values()) or with_p[:1]


def _sort_key(detector: DetectorReport) -> float:
    return 1.0 if detector.p_holm is None else detector.p_holm


def _pattern_sizes(report: Report, detector: DetectorReport) -> Iterable[RenderableType]:
    """Bar chart of pattern sizes, the smallest first, and the source classes."""
    best: dict[int, ClassReport] = {}
    for one in sorted(detector.classes, key=lambda c: c.statistic, reverse=True):
        best.setdefault(one.target, one)
    rows = list(best.values())
    largest = max((one.size for one in rows if one.size is not None), default=1.0) or 1.0
    yield Text.assemble(
        ("Pattern size per target class", "bold"), f"  ({detector.detector}; {detector.unit})"
    )
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for one in rows[:_MOST_BARS]:
        suspicious = detector.target is not None and one.target == detector.target.index
        style = "red" if suspicious and _rejects(report, detector) else ""
        name = f"{one.target} ({report.model.classes[one.target]})"
        size = "none found" if one.size is None else f"{one.size:.3g}"
        length = 0 if one.size is None else max(1, round(_BAR_WIDTH * one.size / largest))
        table.add_row(f"  {name}", "█" * length, size, style=style)
    yield table
    if len(rows) > _MOST_BARS:
        yield f"  ... and {len(rows) - _MOST_BARS} larger ones"
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
    remarks += [
        f"note: isolation, {name}: {done}"
        for name, done in report.environment.get("isolation", {}).items()
        if done.startswith(NOT_LIMITED)
    ]
    if remarks:
        yield ""
        yield from (Text(f"- {remark}", style="dim") for remark in dict.fromkeys(remarks))


def _rejects(report: Report, detector: DetectorReport) -> bool:
    return detector.p_holm is not None and detector.p_holm < report.settings["alpha"]


def _smallest_p(report: Report) -> float | None:
    return min((d.p_holm for d in report.detectors if d.p_holm is not None), default=None)


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.1e}"


def _paper_p(detector: DetectorReport) -> str:
    """The plug-in p-value, by its logarithm where it underflows."""
    if detector.p_plugin == 0.0 and detector.log_p_plugin is not None:
        return f"1e{detector.log_p_plugin / 2.302585:.0f}"
    return _p(detector.p_plugin)
