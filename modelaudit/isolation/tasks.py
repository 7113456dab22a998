"""What a worker can do: plain JSON values in, plain JSON values out."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelaudit.plain import from_plain, to_plain
from modelaudit.stages import StageProgress

if TYPE_CHECKING:
    from modelaudit.report import Report


@dataclass(frozen=True)
class Line:
    """A worker's line to its supervisor.

    Attributes:
        progress: tells how far the task is.
        partial: sends a plain value that the task has found before its result.
        stop: set when the supervisor wants the task to end with what it has.
        started: ``time.monotonic()`` when the worker began.
    """

    progress: StageProgress
    partial: Callable[[Any], None]
    stop: threading.Event
    started: float


Task = Callable[[dict[str, Any], Mapping[str, str], Line], Any]


def _scan(payload: dict[str, Any], confinement: Mapping[str, str], line: Line) -> Any:
    from modelaudit.conditions import Conditions
    from modelaudit.finished import FinishedDetector
    from modelaudit.options import ScanOptions
    from modelaudit.scanning import scan

    conditions = Conditions(
        started=line.started,
        stop=line.stop,
        finished=from_plain(tuple[FinishedDetector, ...], payload["finished"]),
        keep=(lambda one: line.partial(to_plain(one))) if payload["keep"] else None,
    )
    options = from_plain(ScanOptions, payload["options"])
    report = scan(options, line.progress, conditions=conditions).report
    return to_plain(_confined(report, confinement))


def _scan_part(payload: dict[str, Any], confinement: Mapping[str, str], line: Line) -> Any:
    from modelaudit.conditions import Conditions
    from modelaudit.options import ScanOptions
    from modelaudit.scanning import scan_part

    conditions = Conditions(started=line.started, stop=line.stop)
    return to_plain(scan_part(from_plain(ScanOptions, payload), line.progress, conditions))


def _screen(payload: dict[str, Any], confinement: Mapping[str, str], line: Line) -> Any:
    from modelaudit.screen import screen
    from modelaudit.screen_options import ScreenOptions

    report = screen(from_plain(ScreenOptions, payload), line.progress)
    return to_plain(replace(report, scan=_confined(report.scan, confinement)))


def _confined(report: Report, confinement: Mapping[str, str]) -> Report:
    """The report with what the worker may do."""
    return replace(report, environment={**report.environment, "isolation": dict(confinement)})


def _inspect(payload: dict[str, Any], confinement: Mapping[str, str], line: Line) -> Any:
    gc.disable()  # the process ends with this task: garbage is not worth looking for
    from modelaudit.inspection import inspect_model

    line.progress("loading the model", 0.0)
    model = Path(payload["model"])
    return to_plain(inspect_model(model, payload["arch"], payload["num_classes"]))


TASKS: Mapping[str, Task] = MappingProxyType(
    {"scan": _scan, "scan-part": _scan_part, "screen": _screen, "inspect": _inspect}
)
