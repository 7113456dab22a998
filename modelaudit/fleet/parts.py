"""One scan on many nodes: a task for each detector, and then one that makes the report.

Detectors can run apart and give exactly the numbers of a scan in one piece: each has a generator of
its own and sees nothing of the others, but for those that run after them, which the last task runs.
The targets of one detector cannot: they race against each other (:mod:`detectors.race`), so that
how far one is searched depends on the others.

A part's result goes into the last task as the result of an unfinished scan goes into the one that
resumes it. So it counts only if the model, the images, their preprocessing, the device and the
versions are the same there, and the last task itself runs whatever is missing: a detector whose
part failed, one of another package, all where the model cannot be scanned. Then it fails as a
scan that is not split does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from modelaudit.errors import ModelAuditError
from modelaudit.finished import FinishedDetector
from modelaudit.fleet.node import Parcel
from modelaudit.fleet.runner import Job
from modelaudit.options import ScanOptions


@dataclass(eq=False)
class ScanUnderWay:
    """A scan that has been sent, in one piece or in parts.

    Attributes:
        parcel: all of it.
        model: its files in the object store, which must stay there until the result is here: if
            that is lost with its node, Ray does the task again.
        images: content of its folder of clean images in the object store.
        parts: tasks that run one detector each and have not finished.
        found: what those that have finished found.
    """

    job: Job
    parcel: Parcel
    model: Any
    images: Any
    parts: set[Any] = field(default_factory=set)
    found: tuple[FinishedDetector, ...] = ()

    @property
    def rest(self) -> Parcel:
        """What is left for the last task: the scan, after what its parts found."""
        return replace(self.parcel, finished=self.found)

    @property
    def seconds(self) -> float:
        """What the detectors took in other tasks than the last: the scan cost that, too."""
        return sum(one.report.seconds for one in self.found)


def is_split(waiting: int, models: int, at_once: int) -> bool:
    """Whether the next model to be sent is to be split.

    Those are the last ones, which full rounds of one task for each model leave over, if they would
    leave half of the cluster idle: every part prepares the model anew.

    Args:
        waiting: models that are not sent yet, the next one included.
        models: all that there are to scan.
        at_once: tasks that can run at the same time.
    """
    left = models % at_once
    return waiting <= left and 2 * left <= at_once


def parts_of(parcel: Parcel) -> tuple[Parcel, ...]:
    """Parts of one detector each, the dearest first; none for a scan that is not split.

    That is one with fewer than two built-in detectors; with a time budget, which is that of one
    process; or with a detector or setting that there is not, which the scan itself says.
    """
    from detectors import registry  # brings torch, which Ray's workers do not need
    from modelaudit.lanes import threads_of_each
    from modelaudit.scanning import build_detectors

    options = parcel.options
    if options.time_budget is not None:
        return ()
    try:
        names = build_detectors(options.detectors, options.settings, options.preset)
    except ModelAuditError:
        return ()
    own = [name for name in names if name in registry.REGISTRY and not registry.runs_after(name)]
    own.sort(key=registry.cost, reverse=True)
    # As many as in a scan in one piece, so that the numbers are the same to the last digit.
    threads = threads_of_each(options.device, parcel.threads, len(names))
    parts = (
        replace(parcel, options=_part(options, one), threads=threads, part=True) for one in own
    )
    return tuple(parts) if len(own) > 1 else ()


def _part(options: ScanOptions, name: str) -> ScanOptions:
    settings = {one: values for one, values in options.settings.items() if one == name}
    return replace(options, detectors=(name,), settings=settings)
