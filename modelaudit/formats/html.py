"""The report as one HTML file without scripts and without requests, for screens and paper."""

from __future__ import annotations

from functools import partial
from typing import Any

from modelaudit.failure import Failure
from modelaudit.formats import chart, reading, wording
from modelaudit.formats.page import page_template
from modelaudit.formats.policy_text import policy_lines
from modelaudit.report import Report

_LIMITS = (
    "A verdict is about the attacks that the detectors look for, on the clean images given. Other "
    "attacks, and fainter ones, are not seen. There is no verdict “clean”.",
    "The calibrated p-values hold as far as the statistics of a clean model's classes are "
    "independent draws from one Gamma distribution. With Holm's correction at most a share alpha "
    "of clean models would then be refused.",
    "A class that is naturally close to all others has a small pattern without any backdoor; that "
    "costs power.",
    "Flip rates of the pattern found are no attack success rates: the attacker's own pattern may "
    "be another one that works better.",
)


def render_html(report: Report | Failure) -> str:
    """The page; every text in it is escaped."""
    template = page_template("report")
    if isinstance(report, Failure):
        return template.render(failure=report, report=None, policy=policy_lines(report))
    return template.render(failure=None, report=report, **_parts(report))


def _parts(report: Report) -> dict[str, Any]:
    """What the template shows beside the report itself."""
    return {
        "meaning": wording.meaning(report),
        "policy": policy_lines(report),
        "next_step": wording.next_step(report),
        "odds": wording.odds_text(report),
        "finding_name": wording.finding_name,
        "finding_text": wording.finding_text,
        "first": wording.first_text,
        "suspicious": partial(wording.suspicious_text, report),
        "targets": wording.targets_text(report) if report.targets else "",
        "paper_p": wording.paper_p_text,
        "seen": wording.seen_text,
        "rejecting": {d.detector for d in report.detectors if reading.rejects(report, d)},
        "charts": [c for d in report.detectors if (c := chart.chart_of(report, d))],
        "surest": reading.surest(report),
        "space": chart,
        "limits": _LIMITS,
    }
