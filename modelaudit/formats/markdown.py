"""The report as Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from modelaudit.failure import Failure
from modelaudit.formats.policy_text import policy_lines
from modelaudit.formats.reading import rejects
from modelaudit.formats.wording import (
    evidence_text,
    meaning,
    next_step,
    origin_notes,
    p_text,
    paper_p_text,
    seen_text,
    suspicious_text,
)
from modelaudit.report import Report
from modelaudit.verdict import Verdict

#: Of the verdicts.
SIGNS: Mapping[str, str] = {
    Verdict.BACKDOORED: "❌",
    Verdict.INCONCLUSIVE: "⚠️",
    Verdict.NO_BACKDOOR_FOUND: "✅",
}
#: Markup, and what would make a link of an address.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$]|^[-+#=]|#(?=\d)|:(?=//)|(?<=www)\.)")
_MOST_REMARKS = 20


def render_markdown(report: Report | Failure) -> str:
    """GitHub's and GitLab's Markdown; nothing in it that the model's author wrote is active."""
    lines = _failed(report) if isinstance(report, Failure) else _report(report)
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that is shown as it is: no markup, no mention of a person, no line break."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("@", "@\u200b")


def _failed(failure: Failure) -> list[str]:
    return [
        "### ❌ modelaudit: no verdict",
        "",
        f"The scan of **{escape(failure.model.path)}** failed while {escape(failure.error.stage)}.",
        "",
        f"{escape(failure.error.kind)}: {escape(failure.error.message)}",
        *_policy(failure),
    ]


def _report(report: Report) -> list[str]:
    lines = [
        f"### {SIGNS[report.verdict]} modelaudit: {report.verdict}",
        "",
        f"**{escape(report.model.path)}** (sha256 `{report.model.sha256[:12]}`)",
        "",
        escape(meaning(report)),
        *(f"- {escape(reason)}" for reason in report.reasons),
        *_policy(report),
    ]
    found = [evidence_text(report, d) for d in report.detectors if rejects(report, d)]
    if found:
        lines += ["", *(f"- {escape(text)}" for text in found)]
    if report.detectors:
        lines += ["", *_detectors(report)]
    if report.verdict is Verdict.NO_BACKDOOR_FOUND:
        rows = [(one.sees, one.detector, seen_text(one)) for one in report.looked_for]
        lines += ["", *table_lines(("Looked for", "By", "Seen from"), rows)]
    lines += ["", f"**Next:** {escape(next_step(report))}"]
    return [*lines, *_details(report)]


def _policy(report: Report | Failure) -> list[str]:
    return [part for line in policy_lines(report) for part in ("", f"**{escape(line)}**")]


def _detectors(report: Report) -> Iterable[str]:
    head = ("Detector", "Most suspicious", "p (Holm)", "p calibrated", "p paper")
    rows = [
        (
            d.detector,
            suspicious_text(report, d),
            p_text(d.p_holm),
            p_text(d.p_calibrated),
            paper_p_text(d),
        )
        for d in report.detectors
    ]
    return table_lines(head, rows)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """A table whose cells are shown as they are."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(escape, row))} |"


def _details(report: Report) -> list[str]:
    """What a reviewer may want to unfold: images, settings, remarks."""
    images = report.images
    accuracy = "not measured" if images.accuracy is None else f"{images.accuracy:.1%}"
    facts = [
        f"{images.total} clean images of {len(images.counts)} classes; clean accuracy {accuracy} "
        f"on {images.pool}",
        f"alpha = {report.settings['alpha']}, {report.image_passes:,.0f} image-passes, "
        f"{report.seconds:.0f} s, modelaudit {report.environment['modelaudit']}",
        *(f"{c.status}: {c.message}" for c in report.preflight if c.status != "ok"),
        *report.model.notes,
        *images.warnings,
        *(f"{d.detector}: {note}" for d in report.detectors for note in d.notes),
        *origin_notes(report),
        *(
            f"{one.name}: {one.summary}" if one.status == "done" else f"{one.name}: {one.reason}"
            for one in report.examinations
        ),
    ]
    shown = [f"- {escape(fact)}" for fact in dict.fromkeys(facts)]
    if len(shown) > _MOST_REMARKS:
        shown = [*shown[:_MOST_REMARKS], f"- ... and {len(shown) - _MOST_REMARKS} more"]
    return ["", "<details><summary>Details</summary>", "", *shown, "", "</details>"]
