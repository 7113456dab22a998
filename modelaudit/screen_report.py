"""The typed, versioned report of ``modelaudit screen``.

``screen.schema.json`` beside this file is its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelaudit.evidence import Target
from modelaudit.plain import to_plain
from modelaudit.report import Report
from modelaudit.schemas import shipped_schema

#: As for :data:`modelaudit.report.SCHEMA_VERSION`.
SCREEN_SCHEMA_VERSION = "1.0"


@dataclass(frozen=True)
class ScreenCheck:
    """One statistic of every input.

    Attributes:
        name: ``strip``, or the detector whose pattern's signature it is.
        meaning: of the score, a sentence.
        mean, std: of the clean images' scores.
    """

    name: str
    meaning: str
    mean: float
    std: float


@dataclass(frozen=True)
class ScreenedInput:
    """What is known of one input.

    Attributes:
        file: path below the folder of inputs.
        prediction: the model's class.
        scores: check -> score; ``None`` where the model gives no number.
        p: share of clean images that look at least as suspicious, the input counted among them; in
            (0, 1].
        flagged: whether p is at most the false-rejection rate.
    """

    file: str
    prediction: Target
    scores: Mapping[str, float | None]
    p: float
    flagged: bool


@dataclass(frozen=True)
class UnreadableInput:
    """A file that was not judged."""

    file: str
    reason: str


@dataclass(frozen=True)
class ScreenReport:
    """Which inputs carry a trigger.

    Attributes:
        directory: of the inputs.
        false_rejection_rate: share of clean inputs that may be flagged.
        clean_images: that the scores were compared with.
        skipped: sentences on checks that could not be done.
        inputs: the most suspicious first.
        scan: the scan of the model that came first.
        image_passes: of the scan and the screening together.
        seconds: likewise.
    """

    schema_version: str
    directory: str
    false_rejection_rate: float
    clean_images: int
    checks: tuple[ScreenCheck, ...]
    skipped: tuple[str, ...]
    inputs: tuple[ScreenedInput, ...]
    unreadable: tuple[UnreadableInput, ...]
    scan: Report
    image_passes: float
    seconds: float

    @property
    def flagged(self) -> tuple[ScreenedInput, ...]:
        """The inputs that carry a trigger, as far as one can tell."""
        return tuple(one for one in self.inputs if one.flagged)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def screen_schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`ScreenReport.to_dict`; ``scan`` in it is a report of its own."""
    return shipped_schema("screen")
