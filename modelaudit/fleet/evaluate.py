"""Scan a labelled collection; resumes where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectors.examinations import EXAMINATIONS
from modelaudit.examine import asked_examinations
from modelaudit.failure import Failure
from modelaudit.fleet.evaluation import Evaluation, Outcome, outcome_of
from modelaudit.fleet.manifest import ManifestModel, read_manifest
from modelaudit.fleet.runner import FleetOptions, FleetProgress, Job, jobs_of, run_fleet
from modelaudit.fleet.store import read_finished, save_report
from modelaudit.formats.evaluation_files import evaluation_format_for
from modelaudit.options import ScanOptions
from modelaudit.report import Report


@dataclass(frozen=True)
class EvaluateOptions(FleetOptions):
    """What to evaluate and how.

    Attributes:
        manifest: JSON file; see :mod:`modelaudit.fleet.manifest`.
        outputs: reports, in the format of the extension, rewritten after every model. What is
            finished according to the JSON ones is not scanned again.
        examine: published checks to do beside the verdict; see :func:`asked_examinations`.
    """

    manifest: Path
    outputs: tuple[Path, ...] = ()
    examine: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        return {
            "manifest": str(self.manifest),
            **super().describe(),
            "examine": list(self.examine),
        }


def evaluate(options: EvaluateOptions, progress: FleetProgress | None = None) -> Evaluation:
    """Scan every model of the manifest.

    A model that cannot be scanned is recorded with its error; the others go on.

    Raises:
        ManifestError: the manifest or the report to resume from is malformed.
        UsageError: unknown detectors, settings, examinations or formats; a report that cannot be
            written.
    """
    settings = options.describe()
    models = {model.name: model for model in read_manifest(options.manifest)}
    scans = {name: _scan_of(one, options) for name, one in models.items()}
    jobs = jobs_of(scans, progress)

    def record(job: Job, result: Report | Failure) -> Outcome:
        examined = asked_examinations(job.options)
        budget = job.options.time_budget
        return outcome_of(models[job.name], job.key, result, examined, budget)

    def collected(known: Mapping[str, Outcome]) -> Evaluation:
        return Evaluation(tuple(known[name] for name in models if name in known), settings)

    def save(known: Mapping[str, Outcome]) -> None:
        evaluation = collected(known)
        for path in options.outputs:
            save_report(path, evaluation_format_for(path)(evaluation))

    finished = _finished(options.outputs, jobs, models)
    return collected(run_fleet(jobs, options.executor(), finished, record, save, progress))


def _scan_of(model: ManifestModel, options: EvaluateOptions) -> ScanOptions:
    """How a model is scanned; its other images are read where an examination looks at them."""
    plain = replace(options.scan_options(model, model.clean_dir), examine=options.examine)
    needs = {need for name in asked_examinations(plain) for need in EXAMINATIONS[name].needs}
    return replace(
        plain,
        suspect_dir=model.suspect_dir if "suspects" in needs else None,
        train_dir=model.train_dir if "train" in needs else None,
    )


def _finished(
    outputs: Sequence[Path], jobs: Sequence[Job], models: Mapping[str, ManifestModel]
) -> dict[str, Outcome]:
    """Outcomes of earlier runs with the same inputs and truth; failures are tried again."""
    expected = {(job.name, job.key): job for job in jobs}
    finished = {}
    for one in read_finished(outputs, "an evaluation report", Outcome.from_dict):
        job = expected.get((one.name, one.key))
        if job is None or one.error is not None or not job.is_done(one.cut_short_after):
            continue
        if _truth(one.manifest) == _truth(models[one.name].entry):
            finished[one.name] = one
    return finished


def _truth(entry: Mapping[str, Any]) -> list[Any]:
    """What an entry of a manifest says that a scan should find."""
    return [entry.get(key) for key in ("label", "attack", "targets", "sources")]
