"""Scans on this machine: a thread waits for each scan's own process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import cycle, islice, takewhile
from pathlib import Path
from queue import SimpleQueue

from modelaudit.failure import Failure
from modelaudit.fleet.runner import Job, attempt
from modelaudit.isolation.limits import Limits
from modelaudit.options import ScanOptions
from modelaudit.report import Report
from modelaudit.run import run_scan, scan_in_worker

_DEVICES = Path("/dev")


@dataclass(frozen=True)
class LocalExecutor:
    """See :class:`modelaudit.fleet.runner.Executor`.

    Attributes:
        jobs: scans at the same time.
        limits: see :class:`modelaudit.fleet.runner.FleetOptions`.
    """

    jobs: int
    limits: Limits | None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        """The results as they come."""
        cancelled = threading.Event()
        scan = self._scan(cancelled)
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = {pool.submit(attempt, scan, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # Interrupted: what is queued must not run, and what runs must not be waited for.
            cancelled.set()
            pool.shutdown(cancel_futures=True)

    def _scan(self, cancelled: threading.Event) -> Callable[[ScanOptions], Report]:
        """How one model is scanned: in a worker with its share of the machine, or here."""
        if self.limits is None and self.jobs == 1:
            return lambda options: run_scan(options, None)
        threads = max(1, (os.cpu_count() or 1) // self.jobs) if self.jobs > 1 else None
        limits = self.limits
        if limits is not None:
            limits = replace(limits, memory=max(1, limits.memory // self.jobs))
        slots: SimpleQueue[str | None] = SimpleQueue()
        for slot in islice(cycle(gpus() if self.jobs > 1 else [None]), self.jobs):
            slots.put(slot)

        def scan(options: ScanOptions) -> Report:
            slot = slots.get()
            try:
                return scan_in_worker(
                    options, limits, threads=threads, cancelled=cancelled, gpu=slot
                )
            finally:
                slots.put(slot)

        return scan


def gpus() -> Sequence[str | None]:
    """The GPUs that scans at the same time are spread over, as ``CUDA_VISIBLE_DEVICES`` names them.

    Returns:
        ``None`` alone where there is at most one: then nothing need be said. Torch is not asked,
        because importing it takes seconds.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        nodes = (path.name.removeprefix("nvidia") for path in _DEVICES.glob("nvidia*"))
        found = [str(place) for place, _ in enumerate(filter(str.isdigit, nodes))]
    else:
        listed = (part.strip() for part in named.split(","))
        found = list(takewhile(lambda one: one not in ("", "-1"), listed))  # as CUDA reads it
    return found if len(found) > 1 else [None]
