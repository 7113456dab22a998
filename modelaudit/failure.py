"""The report of a scan that failed: which stage, why, and that there is no verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelaudit import __version__
from modelaudit.errors import ModelAuditError
from modelaudit.options import ScanOptions
from modelaudit.plain import to_plain
from modelaudit.report import SCHEMA_VERSION

#: The stage of a failure before the first stage of a scan.
STARTING = "starting"


@dataclass(frozen=True)
class FailureCause:
    """What went wrong.

    Attributes:
        kind: name of the error's class; see :mod:`modelaudit.errors`.
        stage: of the scan, in the words of the progress display.
    """

    kind: str
    stage: str
    message: str


@dataclass(frozen=True)
class FailedModel:
    """The model that could not be scanned."""

    path: str


@dataclass(frozen=True)
class Failure:
    """In the place of a :class:`modelaudit.report.Report`.

    Attributes:
        verdict: always ``error``: nothing is known about the model.
        settings: the options of the scan.
    """

    schema_version: str
    verdict: Literal["error"]
    error: FailureCause
    model: FailedModel
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def failure_of(options: ScanOptions, error: ModelAuditError) -> Failure:
    """The report of a scan with ``options`` that ended in ``error``."""
    return Failure(
        SCHEMA_VERSION,
        "error",
        FailureCause(type(error).__name__, error.stage or STARTING, str(error)),
        FailedModel(str(options.model)),
        to_plain(options),
        {"modelaudit": __version__},
    )
