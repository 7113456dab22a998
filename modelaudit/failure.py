"""The report of a scan that failed: which stage, why, and that there is no verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelaudit import __version__
from modelaudit.errors import ModelAuditError
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.plain import to_plain
from modelaudit.policy_report import PolicyReport
from modelaudit.report import SCHEMA_VERSION
from modelaudit.stages import STARTING


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
    """The model that could not be scanned.

    Attributes:
        sha256: hex digest of the file; ``None`` where it cannot be read.
    """

    path: str
    sha256: str | None


@dataclass(frozen=True)
class Failure:
    """In the place of a :class:`modelaudit.report.Report`.

    Attributes:
        verdict: always ``error``: nothing is known about the model.
        policy: what that leads to; ``None`` where nobody asked the command line.
    """

    schema_version: str
    verdict: Literal["error"]
    error: FailureCause
    model: FailedModel
    environment: Mapping[str, Any]
    policy: PolicyReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def failure_of(model: Path, error: Exception) -> Failure:
    """The report of a scan of ``model`` that ended in ``error``."""
    stage = error.stage if isinstance(error, ModelAuditError) else None
    return Failure(
        SCHEMA_VERSION,
        "error",
        FailureCause(type(error).__name__, stage or STARTING, str(error)),
        FailedModel(str(model), sha256_if_readable(model)),
        {"modelaudit": __version__},
    )


def sha256_if_readable(model: Path) -> str | None:
    """As :func:`modelaudit.loaders.sha256_of`; ``None`` for a file that cannot be read."""
    try:
        return sha256_of(model)
    except (ModelAuditError, OSError):
        return None
