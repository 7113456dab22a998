"""The reports of a sweep: one per model and format, in one folder."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from modelaudit.errors import UsageError
from modelaudit.failure import Failure
from modelaudit.fleet.store import save_report
from modelaudit.fleet.sweep_summary import SweptModel
from modelaudit.formats import FORMATS
from modelaudit.plain import from_plain
from modelaudit.report import Report

_PLAIN = re.compile(r"[\w+-][\w.+-]*", re.ASCII)
_OTHER = re.compile(r"[^\w.+-]+", re.ASCII)
_LONGEST = 80
# Of the summary, which lies in the same folder.
_SUMMARY = "sweep"


@dataclass(frozen=True)
class ReportFolder:
    """Where reports go.

    Attributes:
        folder: made if it is missing.
        formats: names of :data:`modelaudit.formats.FORMATS`.
    """

    folder: Path
    formats: tuple[str, ...]

    def names(self, model: str) -> tuple[str, ...]:
        """The files of a model's reports, below the folder."""
        return tuple(f"{_file_name(model)}{FORMATS[one].extensions[0]}" for one in self.formats)

    def have(self, model: str) -> bool:
        """Whether all reports of a model are there."""
        return all((self.folder / name).is_file() for name in self.names(model))

    def write(self, model: str, result: Report | Failure) -> None:
        """Write the reports of a model.

        Raises:
            UsageError: the folder cannot be made or written to.
        """
        for name, format_ in zip(self.names(model), self.formats, strict=True):
            path = self.folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"--report-dir {path.parent}: {error.strerror or error}."
                ) from error
            save_report(path, FORMATS[format_](result))

    def write_again(self, one: SweptModel) -> bool:
        """Write the reports of a model with its policy, from what its JSON report says.

        Returns:
            Whether that could be done: whether there is such a report, and of that scan.

        Raises:
            UsageError: see :meth:`write`.
        """
        report = self._read(one.name)
        if report is None or report.model.sha256 != one.sha256:
            return False
        if (report.verdict, report.targets) != (one.verdict, one.targets):
            return False
        self.write(one.name, replace(report, policy=one.policy))
        return True

    def _read(self, model: str) -> Report | None:
        """The JSON report of a model; ``None`` where there is none."""
        if "json" not in self.formats:
            return None
        path = self.folder / self.names(model)[self.formats.index("json")]
        try:
            return from_plain(Report, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, RecursionError):
            return None


def _is_plain(part: str) -> bool:
    """Whether a part of a path can be that of a report, which has a longer name."""
    ends = tuple(end for one in FORMATS.values() for end in one.extensions)
    return bool(_PLAIN.fullmatch(part)) and len(part) <= _LONGEST and not part.endswith(ends)


def _file_name(model: str) -> str:
    """The model's name where that is a plain path.

    Else it gets a digest, so that no two models share a report and none lies elsewhere.
    """
    if all(map(_is_plain, model.split("/"))) and model != _SUMMARY:
        return model
    digest = hashlib.sha256(model.encode(errors="surrogateescape")).hexdigest()[:8]
    readable = _OTHER.sub("_", model)[-_LONGEST:].lstrip(".")
    return f"{readable}-{digest}"
