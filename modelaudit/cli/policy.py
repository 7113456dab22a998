"""Policy on the command line: which verdicts fail the command, and waivers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelaudit.cli.settings import own_origins
from modelaudit.errors import UsageError

if TYPE_CHECKING:
    from modelaudit.policy import Policy
    from modelaudit.policy_report import PolicyReport
    from modelaudit.report import Report


@dataclass(frozen=True)
class Gate:
    """What a verdict leads to; see :mod:`modelaudit.policy`."""

    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICT",
            help="Exit with other than 0 only on these: backdoored, inconclusive, error (the model "
            "could not be scanned); repeatable, or with commas. Default: all three.",
        ),
    ] = None
    exit_zero: Annotated[
        bool,
        typer.Option(
            "--exit-zero", help="Exit 0 whatever the verdict is; wrong usage still exits 2."
        ),
    ] = False
    waivers: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of models whose findings somebody answers for; a waived one exits 0.",
            metavar="FILE",
        ),
    ] = None

    @property
    def policy(self) -> Policy:
        """The policy; raises UsageError if it is none."""
        from modelaudit.policy import Policy

        return Policy.parse(self.fail_on, self.exit_zero, self.waivers)

    def without_waivers(self, error: Exception) -> Policy:
        """The same for a scan that ended in an error, maybe because there is no such policy."""
        from modelaudit.policy import Policy

        if isinstance(error, UsageError):
            return Policy()
        return Policy.parse(self.fail_on, self.exit_zero, None)


def with_origins(report: Report, context: typer.Context) -> Report:
    """The report with the settings that come from files or the environment, and from where."""
    origins = {one.key: one.source for one in own_origins(context) if not one.usual}
    return replace(report, settings={**report.settings, "from": origins}) if origins else report


def exit_code_of(report: Report) -> int:
    """The command's, after saying on stderr which waivers have expired."""
    from modelaudit.formats import policy_text

    tell_expired(report.model.path, report.policy)
    return policy_text.exit_code_of(report)


def tell_expired(model: str, policy: PolicyReport | None) -> None:
    """Say on stderr which waivers of a model have expired."""
    for waiver in policy.expired if policy else ():
        print(
            f"modelaudit: error: the waiver of {model} by {waiver.owner} expired on "
            f"{waiver.expires} and is not applied. Renew it with a later day, or act on the "
            "verdict.",
            file=sys.stderr,
        )
