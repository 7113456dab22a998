"""The options of ``modelaudit screen``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelaudit.errors import UsageError
from modelaudit.options import ScanOptions


@dataclass(frozen=True)
class ScreenOptions:
    """What to screen and how.

    Attributes:
        scan: of the model, which comes first.
        inputs: folder with the images to judge, nested or not.
        false_rejection_rate: share of clean inputs that may be flagged, in (0, 1).
        superpositions: per input; the paper of STRIP has 100.
    """

    scan: ScanOptions
    inputs: Path
    false_rejection_rate: float = 0.05
    superpositions: int = 100

    def __post_init__(self) -> None:
        rate = self.false_rejection_rate
        if not 0 < rate < 1:
            raise UsageError(f"The false-rejection rate must lie between 0 and 1, not {rate}.")
        if self.superpositions < 1:
            raise UsageError(f"At least 1 superposition is needed, not {self.superpositions}.")
