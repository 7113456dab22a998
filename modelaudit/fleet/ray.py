"""Scans on a Ray cluster: one task for each model, its files shipped through the object store.

Where the models do not fill the cluster, the last ones are split into a task for each detector and
one that makes the report; see :mod:`modelaudit.fleet.parts`.

Ray is imported when it is asked for and not before. A task whose node dies is started again by Ray;
this process holds the only list of what is expected, and takes every entry from it once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from modelaudit import __version__
from modelaudit.errors import ModelAuditError, WorkerCrashError, error_class, first_line
from modelaudit.failure import Failure, failure_of
from modelaudit.finished import FinishedDetector
from modelaudit.fleet.cluster import RayOptions, connected, gpus_of_each, import_ray
from modelaudit.fleet.node import Parcel, scan_parcel
from modelaudit.fleet.parts import ScanUnderWay, is_split, parts_of
from modelaudit.fleet.runner import Job, attempt
from modelaudit.isolation.limits import Limits
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain
from modelaudit.report import Report
from modelaudit.run import as_named, with_absolute_paths
from modelaudit.scan_files import content_of, image_content, image_listing, model_files

# Tasks sent ahead for each that can run: enough that no node waits, few enough that the object
# store need not hold the whole fleet.
_AHEAD = 2


@dataclass(frozen=True)
class RayExecutor:
    """See :class:`modelaudit.fleet.runner.Executor`."""

    options: RayOptions
    limits: Limits | None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        """The results as they come.

        Raises:
            UsageError: Ray is not installed, the cluster cannot be reached, or no node of it has
                what a scan needs.
        """
        if not jobs:
            return
        ray = import_ray()
        with connected(ray, self.options.address):
            gpus = gpus_of_each(ray, self.options, jobs[0].options.device)
            yield from _Fleet(ray, self.options, self.limits, gpus).run(jobs)


@dataclass
class _Fleet:
    """The tasks of one run.

    Attributes:
        expected: task -> the scan that it does, or a part of it; nothing else is waited for.
        images: folder -> its listing and its content in the object store.
    """

    ray: Any
    options: RayOptions
    limits: Limits | None
    gpus: float
    expected: dict[Any, ScanUnderWay] = field(default_factory=dict)
    images: dict[Path, tuple[tuple[tuple[str, int, int], ...], Any]] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        waiting = deque(jobs)
        try:
            while waiting or self.expected:
                yield from self._send(waiting, len(jobs))
                if self.expected:
                    (done, *_), _ = self.ray.wait(list(self.expected), num_returns=1)
                    yield from self._received(done)
        finally:
            for one in self.expected:
                with suppress(Exception):  # the cluster may be gone
                    self.ray.cancel(one, force=True)

    def _send(self, waiting: deque[Job], models: int) -> Iterator[tuple[Job, Failure]]:
        """Send as many jobs as may be under way; what cannot be read fails here and now."""
        while waiting and len(self.expected) < self._at_once() * _AHEAD:
            split = is_split(len(waiting), models, self._at_once())
            job = waiting.popleft()
            try:
                scan = self._scan(job)
            except (ModelAuditError, OSError) as error:
                yield job, failure_of(job.options.model, error)
                continue
            parts = parts_of(scan.parcel) if split else ()
            for part in parts:
                scan.parts.add(self._start(scan, part))
            if not parts:
                self._start(scan, scan.rest)

    def _received(self, task: Any) -> Iterator[tuple[Job, Report | Failure]]:
        """The result that a task is, if it was the last one of its scan."""
        scan = self.expected.pop(task)
        if task not in scan.parts:
            yield scan.job, attempt(partial(self._report, task, scan), scan.job)
            return
        scan.parts.remove(task)
        scan.found += self._found(task)
        if not scan.parts:
            self._start(scan, scan.rest)

    def _at_once(self) -> int:
        """How many tasks can run at the same time; nodes come and go."""
        there = self.ray.cluster_resources()
        running = there.get("CPU", 0) / self.options.cpus
        if self.gpus:
            running = min(running, there.get("GPU", 0) / self.gpus)
        return max(1, int(running))

    @cached_property
    def _task(self) -> Any:
        return self.ray.remote(
            num_cpus=self.options.cpus,
            num_gpus=self.gpus,
            max_retries=self.options.retries,
            retry_exceptions=False,
        )(_scan_on_node)

    def _start(self, scan: ScanUnderWay, parcel: Parcel) -> Any:
        """A task of a scan, which is now expected."""
        task = self._task.options(num_cpus=parcel.threads).remote(parcel, scan.model, [scan.images])
        self.expected[task] = scan
        return task

    def _scan(self, job: Job) -> ScanUnderWay:
        """The scan of a job, with what it needs in the object store."""
        options = with_absolute_paths(job.options)
        model = self.ray.put(content_of(model_files(options.model), options.model.parent))
        listing, images = self._images(options.clean_dir)
        limits = self.limits
        parcel = Parcel(
            version=__version__,
            options=replace(options, device="cuda" if self.gpus else "cpu"),
            listing=listing,
            labels=options.labels.read_bytes() if options.labels else None,
            limits=limits,
            default_memory=limits is not None and limits.memory == Limits().memory,
            threads=self.options.cpus,
        )
        return ScanUnderWay(job, parcel, model, images)

    def _images(self, folder: Path) -> tuple[tuple[tuple[str, int, int], ...], Any]:
        if folder not in self.images:
            self.images[folder] = image_listing(folder), self.ray.put(image_content(folder))
        return self.images[folder]

    def _found(self, task: Any) -> tuple[FinishedDetector, ...]:
        """What a part found; nothing if it failed, and the last task says what is wrong."""
        try:
            match self.ray.get(task):
                case {"finished": list(plain)}:
                    return from_plain(tuple[FinishedDetector, ...], plain)
        except (self.ray.exceptions.RayError, ValueError):
            pass
        return ()

    def _report(self, task: Any, scan: ScanUnderWay, options: ScanOptions) -> Report:
        """What a scan found, of which this is the last task.

        Raises:
            ModelAuditError: the scan failed, or its node died once too often.
        """
        try:
            result = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            raise WorkerCrashError(
                f"The scan was lost on the Ray cluster, after {self.options.retries} more attempts "
                f"if a node died ({first_line(error)}). Every node needs modelaudit {__version__}."
            ) from error
        match result:
            case {"report": plain}:
                report = as_named(from_plain(Report, plain), options)
                return replace(report, seconds=report.seconds + scan.seconds)
            case {"error": {"kind": str(kind), "message": str(message), "stage": stage}}:
                raise (error_class(kind) or WorkerCrashError)(message, stage=stage)
        raise WorkerCrashError("The Ray cluster sent something odd.")


def _scan_on_node(parcel: Parcel, model: dict[str, bytes], images: list[Any]) -> dict[str, Any]:
    """The task. ``images`` is a reference in a list, which Ray does not fetch by itself."""
    return scan_parcel(parcel, model, lambda: import_module("ray").get(images[0]))
