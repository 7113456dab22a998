"""Scans on a Ray cluster: one task for each model, its files shipped through the object store.

Ray is imported when it is asked for and not before. A task whose node dies is started again by Ray;
this process holds the only list of what is expected, and takes every entry from it once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from modelaudit import __version__
from modelaudit.errors import ModelAuditError, WorkerCrashError, error_class, first_line
from modelaudit.failure import Failure, failure_of
from modelaudit.fleet.cluster import RayOptions, connected, gpus_of_each, import_ray
from modelaudit.fleet.node import Parcel, scan_parcel
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
        expected: task -> the job that it does; nothing else is waited for. With it the model's
            files in the object store, which must stay there until the result is here: if that is
            lost with its node, Ray does the task again.
        images: folder -> its listing and its content in the object store.
    """

    ray: Any
    options: RayOptions
    limits: Limits | None
    gpus: float
    expected: dict[Any, tuple[Job, Any]] = field(default_factory=dict)
    images: dict[Path, tuple[tuple[tuple[str, int, int], ...], Any]] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        task = self.ray.remote(
            num_cpus=self.options.cpus,
            num_gpus=self.gpus,
            max_retries=self.options.retries,
            retry_exceptions=False,
        )(_scan_on_node)
        waiting = deque(jobs)
        try:
            while waiting or self.expected:
                yield from self._send(task, waiting)
                if self.expected:
                    (done, *_), _ = self.ray.wait(list(self.expected), num_returns=1)
                    job, _ = self.expected[done]
                    result = attempt(partial(self._report, done), job)
                    del self.expected[done]
                    yield job, result
        finally:
            for one in self.expected:
                with suppress(Exception):  # the cluster may be gone
                    self.ray.cancel(one, force=True)

    def _send(self, task: Any, waiting: deque[Job]) -> Iterator[tuple[Job, Failure]]:
        """Send as many jobs as may be under way; what cannot be read fails here and now."""
        while waiting and len(self.expected) < self._most():
            job = waiting.popleft()
            try:
                sent, files = self._sent(task, with_absolute_paths(job.options))
                self.expected[sent] = job, files
            except (ModelAuditError, OSError) as error:
                yield job, failure_of(job.options.model, error)

    def _most(self) -> int:
        """How many tasks may be under way; nodes come and go."""
        there = self.ray.cluster_resources()
        running = there.get("CPU", 0) / self.options.cpus
        if self.gpus:
            running = min(running, there.get("GPU", 0) / self.gpus)
        return max(1, int(running)) * _AHEAD

    def _sent(self, task: Any, options: ScanOptions) -> tuple[Any, Any]:
        """The task that scans a model, and the model's files in the object store."""
        files = self.ray.put(content_of(model_files(options.model), options.model.parent))
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
        return task.remote(parcel, files, [images]), files

    def _images(self, folder: Path) -> tuple[tuple[tuple[str, int, int], ...], Any]:
        if folder not in self.images:
            self.images[folder] = image_listing(folder), self.ray.put(image_content(folder))
        return self.images[folder]

    def _report(self, task: Any, options: ScanOptions) -> Report:
        """What a task found.

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
                return as_named(from_plain(Report, plain), options)
            case {"error": {"kind": str(kind), "message": str(message), "stage": stage}}:
                raise (error_class(kind) or WorkerCrashError)(message, stage=stage)
        raise WorkerCrashError("The Ray cluster sent something odd.")


def _scan_on_node(parcel: Parcel, model: dict[str, bytes], images: list[Any]) -> dict[str, Any]:
    """The task. ``images`` is a reference in a list, which Ray does not fetch by itself."""
    return scan_parcel(parcel, model, lambda: import_module("ray").get(images[0]))
