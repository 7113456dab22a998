"""An examination in a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ExaminationReport:
    """An examination without its tensors; see :class:`detectors.examinations.Examination`.

    Attributes:
        target: class index of the pattern that was looked at; ``None`` where there is none.
        notes: sentences on what was left out.
    """

    name: str
    status: Literal["done", "skipped"]
    reason: str
    summary: str
    target: int | None
    numbers: Mapping[str, Any]
    cannot_see: str
    notes: tuple[str, ...]
    image_passes: float
    seconds: float
