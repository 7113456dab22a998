"""Published checks that are evidence beside the verdict. A new one is one new file and one line in
:data:`detectors.examinations.registry.EXAMINATIONS`."""

from detectors.examinations.registry import EXAMINATIONS
from detectors.examinations.types import (
    Examination,
    ExaminationInput,
    Examiner,
    Labelled,
    examined,
    skipped,
)

__all__ = [
    "EXAMINATIONS",
    "Examination",
    "ExaminationInput",
    "Examiner",
    "Labelled",
    "examined",
    "skipped",
]
