"""Audit every model of a folder or a manifest; resumes where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from modelaudit.errors import ImagesError
from modelaudit.failure import Failure, failure_of
from modelaudit.fleet.manifest import FleetModel
from modelaudit.fleet.runner import FleetOptions, FleetProgress, Job, jobs_of, run_fleet
from modelaudit.fleet.store import read_finished, save_report
from modelaudit.fleet.sweep_models import IMAGES, FoundModel, find_models
from modelaudit.fleet.sweep_reports import ReportFolder
from modelaudit.fleet.sweep_summary import (
    SWEEP_SCHEMA_VERSION,
    SweepSummary,
    SweptModel,
    swept_model,
)
from modelaudit.formats.sweep import summary_format_for
from modelaudit.plain import from_plain
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
    """

    source: Path
    clean_dir: Path | None = None
    labels: Path | None = None
    exclude: tuple[str, ...] = ()
    one_format: bool = False
    report_dir: Path | None = None
    report_formats: tuple[str, ...] = ("json",)
    outputs: tuple[Path, ...] = ()

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
    scans = {
        name: options.scan_options(one.model, one.model.clean_dir)
        for name, one in found.items()
        if one.model.clean_dir is not None
    }
    jobs = jobs_of(scans, progress)
    reports = options.reports

    def record(job: Job, result: Report | Failure) -> SweptModel:
        if reports:
            reports.write(job.name, result)
        names = reports.names(job.name) if reports else ()
        clean_dir = str(job.options.clean_dir) if job.name in scans else None
        return swept_model(job, result, clean_dir, found[job.name].others, names)

    def summary_of(known: Mapping[str, SweptModel]) -> SweepSummary:
        models = tuple(known[name] for name in found if name in known)
        source = str(options.source)
        return SweepSummary(SWEEP_SCHEMA_VERSION, source, len(found), models, settings)

    def save(known: Mapping[str, SweptModel]) -> None:
        summary = summary_of(known)
        for path in options.summaries:
            save_report(path, summary_format_for(path)(summary))

    finished = _finished(jobs, found, options)
    for one in found.values():
        if one.model.name not in scans:
            finished[one.model.name] = record(*_without_images(one.model, options))
    return summary_of(run_fleet(jobs, options.executor(), finished, record, save, progress))


def _finished(
    jobs: Sequence[Job], found: Mapping[str, FoundModel], options: SweepOptions
) -> dict[str, SweptModel]:
    """Entries of earlier runs with the same inputs and all their reports, but not the failures."""
    expected = {job.name: job for job in jobs}
    finished = {}
    entry = partial(from_plain, SweptModel)
    for one in read_finished(options.summaries, "a summary of a sweep", entry):
        job = expected.get(one.name)
        if job and one.key == job.key and one.error is None and _reported(one, options):
            finished[one.name] = _as_now(one, job, found[one.name], options)
    return finished


def _reported(one: SweptModel, options: SweepOptions) -> bool:
    return options.reports is None or options.reports.have(one.name)


def _as_now(one: SweptModel, job: Job, found: FoundModel, options: SweepOptions) -> SweptModel:
    """The entry with what has no influence on a scan as it is now."""
    return replace(
        one,
        file=str(job.options.model),
        clean_dir=str(job.options.clean_dir),
        others=found.others,
        reports=options.reports.names(one.name) if options.reports else (),
    )


def _without_images(model: FleetModel, options: SweepOptions) -> tuple[Job, Failure]:
    error = ImagesError(
        f"There are no clean images for {model.file}: give --clean-dir, name a clean_dir in the "
        f"manifest, or put a folder {IMAGES!r} beside the model."
    )
    job = Job(model.name, "", options.scan_options(model, Path()))
    return job, failure_of(model.file, error)
