"""Scan many models: what ``modelaudit evaluate`` and ``modelaudit sweep`` share.

An executor scans the models wherever it likes; what is done with the results, and which models
need no scan because they were scanned before, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from modelaudit import __version__
from modelaudit.errors import InternalError, ModelAuditError, internal_error
from modelaudit.failure import Failure, failure_of
from modelaudit.fleet.cluster import RayOptions
from modelaudit.fleet.key import fingerprints
from modelaudit.fleet.manifest import FleetModel
from modelaudit.isolation.limits import Limits
from modelaudit.options import Preset, ScanOptions
from modelaudit.report import Report

T = TypeVar("T")
#: Called with the number of finished models, the number of all, and the last one's name.
FleetProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One scan of a fleet.

    Attributes:
        name: unique in the fleet.
        key: fingerprint of model, images, options and version, whatever the time budget; see
            :mod:`modelaudit.fleet.key`.
    """

    name: str
    key: str
    options: ScanOptions

    def is_done(self, cut_short_after: int | None) -> bool:
        """Whether an earlier scan with this key left nothing to do.

        Args:
            cut_short_after: seconds that were not enough for it; ``None`` if it had finished.
        """
        budget = self.options.time_budget
        return cut_short_after is None or (budget is not None and budget <= cut_short_after)


class Executor(Protocol):
    """Where scans run."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        """Every job exactly once, as they finish; a scan that fails is a result as well.

        When the iterator is closed, scans that run are ended and those that wait never start.
        """


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """How all models of a fleet are scanned; names as in :class:`modelaudit.options.ScanOptions`.

    Attributes:
        jobs: scans at the same time, each in a process of its own with its share of the cores.
        limits: of each process, but the memory is that of all together; ``None`` runs without
            isolation, a single job in this process.
        ray: run on a Ray cluster instead, and how.
    """

    detectors: tuple[str, ...] = ()
    preset: Preset = "default"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    images_per_class: int = 8
    alpha: float = 0.05
    accuracy_floor: float = 0.5
    device: str = "auto"
    seed: int = 0
    time_budget: int | None = None
    jobs: int = 1
    limits: Limits | None = field(default_factory=Limits)
    ray: RayOptions | None = None

    def scan_options(self, model: FleetModel, clean_dir: Path) -> ScanOptions:
        """How one of the models is scanned."""
        return ScanOptions(
            model=model.file,
            clean_dir=clean_dir,
            labels=model.labels,
            arch=model.arch,
            num_classes=model.num_classes,
            preprocessing=model.preprocessing,
            images_per_class=self.images_per_class,
            detectors=self.detectors,
            preset=self.preset,
            settings=self.settings,
            alpha=self.alpha,
            accuracy_floor=self.accuracy_floor,
            device=self.device,
            seed=self.seed,
            time_budget=self.time_budget,
        )

    def describe(self) -> dict[str, Any]:
        """What all models have in common, as plain values for the report.

        Raises:
            UsageError: unknown detectors or settings.
        """
        from modelaudit.scanning import build_detectors  # brings torch, which Ray does not need

        return {
            "detectors": list(build_detectors(self.detectors, self.settings, self.preset)),
            "settings": {name: dict(values) for name, values in self.settings.items()},
            "images_per_class": self.images_per_class,
            "alpha": self.alpha,
            "seed": self.seed,
            "time_budget": self.time_budget,
            "modelaudit": __version__,
        }

    def executor(self) -> Executor:
        """What scans the models."""
        if self.ray is not None:
            from modelaudit.fleet.ray import RayExecutor

            return RayExecutor(self.ray, self.limits)
        from modelaudit.fleet.local import LocalExecutor

        return LocalExecutor(self.jobs, self.limits)


def jobs_of(scans: Mapping[str, ScanOptions], progress: FleetProgress | None = None) -> list[Job]:
    """The scans with their fingerprints."""
    show = progress or _silent
    keys = fingerprints(scans, lambda name: show(0, len(scans), f"reading {name}"))
    return [Job(name, keys[name], options) for name, options in scans.items()]


def run_fleet(
    jobs: Sequence[Job],
    executor: Executor,
    finished: Mapping[str, T],
    record: Callable[[Job, Report | Failure], T],
    save: Callable[[Mapping[str, T]], None],
    progress: FleetProgress | None = None,
) -> dict[str, T]:
    """Scan what is not finished.

    Args:
        finished: name -> what is known of the jobs that need no scan.
        record: what is kept of a result.
        save: called with all that is known after every scan, and once in the end.

    Returns:
        Name -> what is kept, of all jobs and of all that was finished.
    """
    show = progress or _silent
    known = dict(finished)
    waiting = {job.name: job for job in jobs if job.name not in known}
    total = len(known) + len(waiting)
    show(len(known), total, "")
    with closing(_results(executor, tuple(waiting.values()))) as results:
        for job, result in results:
            if waiting.pop(job.name, None) is None:
                continue  # counted already: an executor that retries may be told twice
            known[job.name] = record(job, result)
            show(len(known), total, job.name)
            save(known)
    if waiting:
        raise InternalError(f"no result for {', '.join(waiting)}")
    save(known)
    return known


def _results(
    executor: Executor, jobs: Sequence[Job]
) -> Generator[tuple[Job, Report | Failure], None, None]:
    """As an iterator that can be closed, whatever the executor returns."""
    yield from executor.run(jobs)


def attempt(scan: Callable[[ScanOptions], Report], job: Job) -> Report | Failure:
    """The report of a scan; of any error, a report that says so: it must not lose the others."""
    try:
        return scan(job.options)
    except ModelAuditError as error:
        return failure_of(job.options.model, error)
    except Exception as error:
        return failure_of(job.options.model, internal_error(error))


def _silent(done: int, total: int, name: str) -> None:
    """Progress that nobody watches."""
