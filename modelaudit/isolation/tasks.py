"""What a worker can do: plain JSON values in, plain JSON values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelaudit.plain import from_plain, to_plain
from modelaudit.stages import StageProgress

Task = Callable[[dict[str, Any], Mapping[str, str], StageProgress], Any]


def _scan(payload: dict[str, Any], confinement: Mapping[str, str], progress: StageProgress) -> Any:
    from modelaudit.options import ScanOptions
    from modelaudit.scan import scan

    report = scan(from_plain(ScanOptions, payload), progress).report
    environment = {**report.environment, "isolation": dict(confinement)}
    return to_plain(replace(report, environment=environment))


def _inspect(
    payload: dict[str, Any], confinement: Mapping[str, str], progress: StageProgress
) -> Any:
    from modelaudit.inspection import inspect_model

    progress("loading the model", 0.0)
    model = Path(payload["model"])
    return to_plain(inspect_model(model, payload["arch"], payload["num_classes"]))


TASKS: Mapping[str, Task] = MappingProxyType({"scan": _scan, "inspect": _inspect})
