"""What all report formats say about policy and waivers."""

from __future__ import annotations

from typing import Protocol

from modelaudit.exit_codes import verdict_code
from modelaudit.policy_report import PolicyReport, WaiverReport


class Judged(Protocol):
    """A report, that of a scan that failed, or what a summary keeps of one."""

    @property
    def verdict(self) -> str: ...

    @property
    def policy(self) -> PolicyReport | None: ...


def is_waived(report: Judged) -> bool:
    """Whether somebody answers for the verdict, so that it does not fail the command."""
    return report.policy is not None and bool(report.policy.applied)


def policy_lines(report: Judged) -> list[str]:
    """A sentence per waiver of the model, and one if the policy lets the verdict pass."""
    if report.policy is None:
        return []
    lines = [waiver_text(one) for one in report.policy.waivers]
    fails = verdict_code(report.verdict) != 0
    if report.policy.exit_code == 0 and fails and not report.policy.applied:
        failing = ", ".join(report.policy.fail_on) or "no verdict"
        lines.append(f"The command fails on {failing}, so it lets this verdict pass.")
    return lines


def waiver_text(waiver: WaiverReport) -> str:
    """A waiver with its owner, its last day and its reason."""
    if waiver.status == "applied":
        return f"Waived by {waiver.owner} until {waiver.expires}: {waiver.reason}"
    if waiver.status == "expired":
        return (
            f"The waiver by {waiver.owner} expired on {waiver.expires} and is not applied "
            f"({waiver.reason})"
        )
    scope = f"verdict {waiver.verdict or 'any'}, target {waiver.target or 'any'}"
    return (
        f"The waiver by {waiver.owner} until {waiver.expires} is not applied: it is for {scope} "
        f"({waiver.reason})"
    )


def exit_code_of(report: Judged) -> int:
    """The command's."""
    if report.policy is not None:
        return report.policy.exit_code
    return verdict_code(report.verdict)
