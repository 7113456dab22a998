"""Audit every model of a folder or a manifest; resumes where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelaudit.errors import UsageError
from modelaudit.failure import Failure, failure_of
from modelaudit.fleet.manifest import FleetModel
from modelaudit.fleet.runner import FleetOptions, FleetProgress, Job, jobs_of, run_fleet
from modelaudit.fleet.store import read_finished, save_report
from modelaudit.fleet.sweep_models import IMAGES, FoundModel, find_models
from modelaudit.fleet.sweep_policy import Judge
from modelaudit.fleet.sweep_reports import ReportFolder
from modelaudit.fleet.sweep_summary import (
    SWEEP_SCHEMA_VERSION,
    SweepSummary,
    SweptModel,
    swept_model,
)
from modelaudit.formats.sweep import summary_format_for
from modelaudit.policy import Policy
from modelaudit.report import Report

#: The summary in the folder of the reports, which a sweep resumes from.
SUMMARY = "sweep.json"


@dataclass(frozen=True)
class SweepOptions(FleetOptions):
    """What to audit and how.

    Attributes:
        source: folder with models, or a manifest; see :func:`find_models`.
        clean_dir, labels, exclude, one_format: see :func:`find_models`.
        report_dir: one report per model and format goes there, and the summary; made if missing.
        report_formats: see :class:`modelaudit.fleet.sweep_reports.ReportFolder`.
        outputs: the summary, in the format of the extension, rewritten after every model. What is
            finished according to the JSON ones, or the one in ``report_dir``, is not scanned again.
        policy: what the verdicts lead to, those of an earlier run included.
    """

    source: Path
    clean_dir: Path | None = None
    labels: Path | None = None
    exclude: tuple[str, ...] = ()
    one_format: bool = False
    report_dir: Path | None = None
    report_formats: tuple[str, ...] = ("json",)
    outputs: tuple[Path, ...] = ()
    policy: Policy = field(default_factory=Policy)

    @property
    def reports(self) -> ReportFolder | None:
        """Where the reports go."""
        if self.report_dir is None:
            return None
        return ReportFolder(self.report_dir, self.report_formats)

    @property
    def summaries(self) -> tuple[Path, ...]:
        """Every file that the summary is written to."""
        own = () if self.report_dir is None else (self.report_dir / SUMMARY,)
        return tuple(dict.fromkeys((*own, *self.outputs)))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "fail_on": list(self.policy.fail_on)}


def sweep(options: SweepOptions, progress: FleetProgress | None = None) -> SweepSummary:
    """Scan every model.

    A model that cannot be scanned is an entry with its error; the others go on.

    Raises:
        ManifestError: the manifest or a summary to resume from is malformed.
        UsageError: no models; unknown detectors, settings or formats; a report that cannot be
            written.
    """
    settings = options.describe()
    found = {
        one.model.name: one
        for one in find_models(
            options.source,
            options.clean_dir,
            options.labels,
            options.exclude,
            options.one_format,
        )
    }
    judge = Judge.of_models(options.policy, [one.model.file for one in found.values()])
    this = _Sweep(options, settings, found, judge)
    scans = {
        name: options.scan_options(one.model, one.model.clean_dir)
        for name, one in found.items()
        if one.model.clean_dir is not None
    }
    jobs = jobs_of(scans, progress)
    finished = this.finished(jobs)
    for name, one in found.items():
        if name not in scans:
            finished[name] = this.record(*_without_images(one.model, options))
    executor = options.executor()
    return this.summary(run_fleet(jobs, executor, finished, this.record, this.save, progress))


@dataclass(frozen=True)
class _Sweep:
    """What is kept of the models.

    Attributes:
        settings: see :class:`SweepSummary`.
        found: name -> model, in the order of the summary.
    """

    options: SweepOptions
    settings: Mapping[str, Any]
    found: Mapping[str, FoundModel]
    judge: Judge

    def record(self, job: Job, result: Report | Failure) -> SweptModel:
        """The entry of a scan's result, whose reports are written."""
        result = self.judge.judged(result, job.options.model)
        reports, found = self.options.reports, self.found[job.name]
        if reports:
            reports.write(job.name, result)
        names = reports.names(job.name) if reports else ()
        clean_dir = found.model.clean_dir
        return swept_model(job, result, str(clean_dir) if clean_dir else None, found.others, names)

    def save(self, known: Mapping[str, SweptModel]) -> None:
        """Write the summary."""
        summary = self.summary(known)
        for path in self.options.summaries:
            save_report(path, summary_format_for(path)(summary))

    def summary(self, known: Mapping[str, SweptModel]) -> SweepSummary:
        """Of what is known."""
        models = tuple(known[name] for name in self.found if name in known)
        source, total = str(self.options.source), len(self.found)
        return SweepSummary(SWEEP_SCHEMA_VERSION, source, total, models, self.settings)

    def finished(self, jobs: Sequence[Job]) -> dict[str, SweptModel]:
        """Entries of earlier runs with the same inputs, all reports, nothing to do, as now."""
        expected = {job.name: job for job in jobs}
        earlier = read_finished(
            self.options.summaries, "a summary of a sweep", SweptModel.from_dict
        )
        finished = {}
        for one in earlier:
            job = expected.get(one.name)
            if job is None or one.key != job.key or one.error is not None:
                continue
            if job.is_done(one.cut_short_after) and (now := self._as_now(one, job)):
                finished[one.name] = now
        return finished

    def _as_now(self, one: SweptModel, job: Job) -> SweptModel | None:
        """The entry with what has no influence on a scan as it is now.

        ``None`` if a report is missing, or says another policy and cannot be written again.
        """
        reports = self.options.reports
        now = self.judge.judged_again(one, job.options.model)
        if now is None or (reports and not reports.have(one.name)):
            return None
        if reports and now.policy != one.policy and not reports.write_again(now):
            return None
        return replace(
            now,
            file=str(job.options.model),
            clean_dir=str(job.options.clean_dir),
            others=self.found[one.name].others,
            reports=reports.names(one.name) if reports else (),
        )


def _without_images(model: FleetModel, options: SweepOptions) -> tuple[Job, Failure]:
    error = UsageError(
        f"There are no clean images for {model.file}: give --clean-dir, name a clean_dir in the "
        f"manifest, or put a folder {IMAGES!r} beside the model."
    )
    job = Job(model.name, "", options.scan_options(model, Path()))
    return job, failure_of(model.file, error)
