"""From a verdict to an exit code: which verdicts fail the command, and which are waived.

The verdict itself never changes. Without options, every verdict has its own exit code
(:data:`modelaudit.exit_codes.EXIT_CODES`); one that is not in ``fail_on``, or that waivers cover,
exits 0. ``error`` in ``fail_on`` is a model that could not be scanned. Wrong usage and faults of
the program exit 2 whatever the policy is, and an interrupted scan 130.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from modelaudit.errors import (
    InternalError,
    ModelAuditError,
    ModelFileError,
    ScanInterrupted,
    UsageError,
    error_class,
)
from modelaudit.evidence import Target
from modelaudit.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED, verdict_code
from modelaudit.failure import Failure
from modelaudit.plain import printable
from modelaudit.policy_report import PolicyReport, WaiverReport, WaiverStatus
from modelaudit.report import Report
from modelaudit.waivers import WAIVABLE, Waiver, read_waivers

#: Verdicts with which the command can fail.
FAILING = ("backdoored", "inconclusive", "error")


def today() -> date:
    """The day that the expiry of waivers is compared with, UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class Policy:
    """What verdicts lead to.

    Attributes:
        fail_on: verdicts with which the command fails.
        waivers: of any models.
    """

    fail_on: tuple[str, ...] = FAILING
    waivers: tuple[Waiver, ...] = ()

    @classmethod
    def parse(cls, fail_on: Sequence[str] | None, exit_zero: bool, waivers: Path | None) -> Policy:
        """The policy of the command line.

        Args:
            fail_on: verdicts, or several with commas between.
            exit_zero: whether no verdict fails the command.
            waivers: the file of :mod:`modelaudit.waivers`.

        Raises:
            UsageError: an unknown verdict, both of the first two, or a file that is not valid.
        """
        if fail_on and exit_zero:
            raise UsageError("--fail-on and --exit-zero exclude each other; give one of them.")
        named = [name.strip() for text in fail_on or FAILING for name in text.split(",")]
        for name in named:
            if name not in FAILING:
                raise UsageError(f"--fail-on {name}: expected one of {', '.join(FAILING)}.")
        chosen = () if exit_zero else tuple(name for name in FAILING if name in named)
        return cls(chosen, read_waivers(waivers) if waivers else ())

    def judged(self, report: Report, sha256: str | None) -> Report:
        """The report with what it leads to.

        Args:
            sha256: of the model, by this process; needed if there are waivers. The report's own
                was made where the model ran.

        Raises:
            ModelFileError: the two differ.
        """
        if self.waivers and sha256 != report.model.sha256:
            raise ModelFileError(
                f"{report.model.path} is not the file that was scanned: its SHA-256 was {sha256} "
                f"before the scan and {report.model.sha256} in it. Scan it again."
            )
        outcome = self.outcome(report.verdict.value, report.targets, sha256)
        if report.interrupted:
            outcome = replace(outcome, exit_code=EXIT_INTERRUPTED)
        return replace(report, policy=outcome)

    def outcome(
        self, verdict: str, targets: tuple[Target, ...], sha256: str | None
    ) -> PolicyReport:
        """What the verdict of a finished scan leads to.

        Args:
            sha256: of the model, by this process; needed if there are waivers.
        """
        waivers = self._waivers(verdict, targets, sha256)
        waived = any(one.status == "applied" for one in waivers)
        fails = verdict in self.fail_on and not waived
        return PolicyReport(self.fail_on, verdict_code(verdict) if fails else 0, waivers)

    def judged_failure(self, failure: Failure) -> Failure:
        """The same for a scan that failed, which cannot be waived."""
        code = self._code_of(error_class(failure.error.kind))
        return replace(failure, policy=PolicyReport(self.fail_on, code, ()))

    def exit_code_of(self, error: Exception) -> int:
        """0 if the model could not be scanned and that is no reason to fail."""
        return self._code_of(type(error) if isinstance(error, ModelAuditError) else None)

    def _code_of(self, kind: type[ModelAuditError] | None) -> int:
        if kind is None or issubclass(kind, UsageError | InternalError):
            return EXIT_ERROR
        if issubclass(kind, ScanInterrupted):
            return EXIT_INTERRUPTED
        return EXIT_ERROR if "error" in self.fail_on else 0

    def _waivers(
        self, verdict: str, targets: tuple[Target, ...], sha256: str | None
    ) -> tuple[WaiverReport, ...]:
        """The waivers of this model."""
        if verdict not in WAIVABLE:
            return ()
        # What must be covered: every target, or the verdict where there is none.
        parts: Sequence[Target | None] = targets or (None,)
        known = [one for one in self.waivers if one.sha256 == sha256]
        valid = [one for one in known if one.expires >= today()]
        fitting = [one for one in valid if any(one.fits(verdict, part) for part in parts)]
        covered = all(any(one.fits(verdict, part) for one in fitting) for part in parts)

        def status(one: Waiver) -> WaiverStatus:
            if one not in valid:
                return "expired"
            return "applied" if covered and one in fitting else "not-covering"

        return tuple(_reported(one, status(one)) for one in known)


def _reported(one: Waiver, status: WaiverStatus) -> WaiverReport:
    target = None if one.target is None else printable(str(one.target))
    return WaiverReport(
        status,
        printable(one.reason),
        printable(one.owner),
        one.expires.isoformat(),
        one.verdict,
        target,
    )
