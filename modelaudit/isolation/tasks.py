"""What a worker can do: plain JSON values in, plain JSON values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelaudit.plain import from_plain, to_plain
from modelaudit.stages import StageProgress

if TYPE_CHECKING:
    from modelaudit.report import Report

Task = Callable[[dict[str, Any], Mapping[str, str], StageProgress], Any]


def _scan(payload: dict[str, Any], confinement: Mapping[str, str], progress: StageProgress) -> Any:
    from modelaudit.options import ScanOptions
    from modelaudit.scan import scan

    report = scan(from_plain(ScanOptions, payload), progress).report
    return to_plain(_confined(report, confinement))


def _screen(
    payload: dict[str, Any], confinement: Mapping[str, str], progress: StageProgress
) -> Any:
    from modelaudit.screen import screen
    from modelaudit.screen_options import ScreenOptions

    report = screen(from_plain(ScreenOptions, payload), progress)
    return to_plain(replace(report, scan=_confined(report.scan, confinement)))


def _confined(report: Report, confinement: Mapping[str, str]) -> Report:
    """The report with what the worker may do."""
    return replace(report, environment={**report.environment, "isolation": dict(confinement)})


def _inspect(
    payload: dict[str, Any], confinement: Mapping[str, str], progress: StageProgress
) -> Any:
    from modelaudit.inspection import inspect_model

    progress("loading the model", 0.0)
    model = Path(payload["model"])
    return to_plain(inspect_model(model, payload["arch"], payload["num_classes"]))


TASKS: Mapping[str, Task] = MappingProxyType(
    {"scan": _scan, "screen": _screen, "inspect": _inspect}
)
