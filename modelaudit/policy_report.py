"""What a report says about policy: which verdicts fail the command, and waivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WaiverStatus = Literal["applied", "expired", "not-covering"]


@dataclass(frozen=True)
class WaiverReport:
    """A waiver of the model.

    Attributes:
        status: ``applied``: the command lets the verdict pass; ``expired``; ``not-covering``: it is
            for another verdict or target, or does not cover all targets.
        expires: the last day on which it holds, YYYY-MM-DD.
        verdict, target: that it is for; ``None`` for any.
    """

    status: WaiverStatus
    reason: str
    owner: str
    expires: str
    verdict: str | None
    target: str | None


@dataclass(frozen=True)
class PolicyReport:
    """What the verdict leads to; the verdict itself is what the detectors say.

    Attributes:
        fail_on: verdicts with which the command fails.
        exit_code: of the command.
        waivers: those of this model, by its SHA-256.
    """

    fail_on: tuple[str, ...]
    exit_code: int
    waivers: tuple[WaiverReport, ...]

    @property
    def applied(self) -> tuple[WaiverReport, ...]:
        """The waivers because of which the verdict passes; empty if it is not waived."""
        return tuple(one for one in self.waivers if one.status == "applied")

    @property
    def expired(self) -> tuple[WaiverReport, ...]:
        """The waivers that hold no more."""
        return tuple(one for one in self.waivers if one.status == "expired")
