"""The typed, versioned summary of ``modelaudit sweep``.

``sweep.schema.json`` beside this file is its JSON Schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelaudit.cut_short import CutShort
from modelaudit.evidence import Target
from modelaudit.exit_codes import EXIT_ERROR, WORST, worst_code
from modelaudit.failure import Failure, FailureCause
from modelaudit.fleet.runner import Job
from modelaudit.formats.policy_text import exit_code_of, is_waived
from modelaudit.formats.reading import smallest_p
from modelaudit.plain import from_plain, to_plain
from modelaudit.policy_report import PolicyReport
from modelaudit.report import Report
from modelaudit.schemas import shipped_schema

#: As for :data:`modelaudit.report.SCHEMA_VERSION`.
SWEEP_SCHEMA_VERSION = "1.1"


@dataclass(frozen=True)
class SweptModel:
    """What is known of one model.

    Attributes:
        name: unique in the sweep; below the folder swept, or as in the manifest.
        key: fingerprint of model, images, options and version; a resume keeps the entry if it is
            equal.
        others: files beside it with the same model in another format; they were not scanned.
        sha256: hex digest of the file; ``None`` where it cannot be read.
        verdict: one of :data:`WORST`.
        targets: found by the scan, the surest first.
        p: smallest Holm-adjusted p-value.
        reasons: why the verdict is inconclusive.
        error: why the scan failed.
        reports: files of the report, in the report folder.
        cut_short: why the scan ended before all detectors had finished; ``None`` if it did not.
        cut_short_after: the time budget that it used up, in seconds; a resume with a larger one
            scans again.
        policy: what the verdict leads to, as in a scan of this model alone; ``None`` in summaries
            before 1.1.
    """

    name: str
    key: str
    file: str
    clean_dir: str | None
    others: tuple[str, ...]
    sha256: str | None
    verdict: str
    targets: tuple[Target, ...]
    p: float | None
    reasons: tuple[str, ...]
    error: FailureCause | None
    image_passes: float
    seconds: float
    reports: tuple[str, ...]
    cut_short: CutShort | None = None
    cut_short_after: int | None = None
    policy: PolicyReport | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> SweptModel:
        """The inverse of ``to_plain``; raises ValueError or TypeError for something else."""
        # Summaries before 1.1 do not have these.
        new = {"cut_short": None, "cut_short_after": None, "policy": None}
        return from_plain(cls, {**new, **entry})


def swept_model(
    job: Job,
    result: Report | Failure,
    clean_dir: str | None,
    others: tuple[str, ...],
    reports: tuple[str, ...],
) -> SweptModel:
    """The entry of a scan's result."""
    report = result if isinstance(result, Report) else None
    return SweptModel(
        name=job.name,
        key=job.key,
        file=str(job.options.model),
        clean_dir=clean_dir,
        others=others,
        sha256=result.model.sha256,
        verdict=str(result.verdict),
        targets=report.targets if report else (),
        p=smallest_p(report) if report else None,
        reasons=report.reasons if report else (),
        error=None if isinstance(result, Report) else result.error,
        image_passes=report.image_passes if report else 0.0,
        seconds=report.seconds if report else 0.0,
        reports=reports,
        cut_short=report.cut_short if report else None,
        cut_short_after=job.options.time_budget if report and report.cut_short else None,
        policy=result.policy,
    )


@dataclass(frozen=True)
class SweepSummary:
    """The models of a sweep and what they add up to.

    Attributes:
        source: the folder or manifest, as the user wrote it.
        total: models that there are; more than ``models`` while the sweep runs.
        models: in the order of their names, or of the manifest.
        settings: the options of the sweep.
    """

    schema_version: str
    source: str
    total: int
    models: tuple[SweptModel, ...]
    settings: Mapping[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of models, the worst first."""
        found = Counter(one.verdict for one in self.models)
        return {verdict: found[verdict] for verdict in WORST}

    @property
    def waived(self) -> int:
        """Number of models whose verdict somebody answers for."""
        return sum(map(is_waived, self.models))

    @property
    def exit_code(self) -> int:
        """Of the worst model, by the policy."""
        return worst_code([exit_code_of(one) for one in self.models]) if self.models else EXIT_ERROR

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: all of it, the counts, the exit code and the cost."""
        return {
            **to_plain(self),
            "counts": self.counts,
            "waived": self.waived,
            "exit_code": self.exit_code,
            "image_passes": sum(one.image_passes for one in self.models),
            "seconds": sum(one.seconds for one in self.models),
        }


def sweep_schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`SweepSummary.to_dict`."""
    return shipped_schema("sweep")
