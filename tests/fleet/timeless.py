"""Results of scans, to be compared with those of scans that took another time."""

from __future__ import annotations

from dataclasses import replace

from modelaudit.failure import Failure
from modelaudit.report import Report


def timeless(result: Report | Failure) -> Report | Failure:
    """All of a result but how long it took, and when it was made."""
    if isinstance(result, Failure):
        return result
    return replace(
        result,
        seconds=0.0,
        detectors=tuple(replace(one, seconds=0.0) for one in result.detectors),
        examinations=tuple(replace(one, seconds=0.0) for one in result.examinations),
        environment={**result.environment, "created": ""},
    )
