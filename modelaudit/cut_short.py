"""A scan that ended before all that was asked for was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Cause = Literal["time budget", "interrupted"]

#: Why something is left out.
REASONS: Mapping[Cause, str] = MappingProxyType(
    {
        "time budget": "left out: the time budget was used up",
        "interrupted": "left out: the scan was interrupted",
    }
)
_BECAUSE: Mapping[Cause, str] = MappingProxyType(
    {
        "time budget": "Cut short: the time budget was used up.",
        "interrupted": "Cut short: the scan was interrupted.",
    }
)


@dataclass(frozen=True)
class LeftOut:
    """A detector that had not finished.

    Attributes:
        sees: the attacks that it is for, in a few words.
    """

    detector: str
    sees: str


@dataclass(frozen=True)
class CutShort:
    """Why a scan ended early, and what it did not look for.

    Attributes:
        cause: the time budget was used up, or somebody interrupted the scan.
        left_out: empty where all detectors had finished, and only examinations are left out.
        kept: whether the same command goes on after the detectors that had finished.
    """

    cause: Cause
    left_out: tuple[LeftOut, ...]
    kept: bool = False

    @property
    def reason(self) -> str:
        """Why something was left out."""
        return REASONS[self.cause]

    def __str__(self) -> str:
        """The same for a person."""
        if not self.left_out:
            return f"{_BECAUSE[self.cause]} All detectors had finished; examinations are left out."
        unseen = "; ".join(f"{one.sees} ({one.detector})" for one in self.left_out)
        return f"{_BECAUSE[self.cause]} Not looked for: {unseen}."
