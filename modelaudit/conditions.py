"""How long a scan may take, and what it starts from. Nothing here imports torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelaudit.cut_short import REASONS, Cause
from modelaudit.finished import FinishedDetector
from modelaudit.stages import StageProgress


class Stopped(BaseException):
    """Raised within a detector, by the progress that it reports, to end it.

    No ``Exception``, so that nobody on the way takes it for a failure of the model's.

    Attributes:
        reason: why what was stopped is left out.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.reason = REASONS[cause]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a scan runs.

    Attributes:
        started: ``time.monotonic()`` from which on the time counts.
        stop: set when somebody wants the scan to end.
        finished: detectors of this scan that ran before it, or elsewhere.
        keep: called with every detector that has finished, those taken over included; ``None``
            where nothing is kept.
    """

    started: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    finished: tuple[FinishedDetector, ...] = ()
    keep: Callable[[FinishedDetector], None] | None = None


class Clock:
    """Says when a scan has to end.

    Args:
        conditions: of the scan.
        budget: seconds from ``conditions.started``; ``None`` for any number.
    """

    def __init__(self, conditions: Conditions, budget: int | None) -> None:
        self._stop = conditions.stop
        self._end = None if budget is None else conditions.started + budget
        self._stopped: Cause | None = None

    @property
    def stopped(self) -> Cause | None:
        """Why something was stopped; ``None`` if nothing was."""
        return self._stopped

    def limited(self, progress: StageProgress) -> StageProgress:
        """The progress of what can be left out: it raises :class:`Stopped` when it is time."""

        def show(stage: str, share: float) -> None:
            if self._stop.is_set():
                self._stopped = "interrupted"
            elif self._end is not None and time.monotonic() >= self._end:
                self._stopped = self._stopped or "time budget"
            if self._stopped:
                raise Stopped(self._stopped)
            progress(stage, share)

        return show

    def interruptible(self, progress: StageProgress) -> StageProgress:
        """The progress of what cannot be left out: it raises :class:`Stopped` on a wish to end."""

        def show(stage: str, share: float) -> None:
            if self._stop.is_set():
                raise Stopped("interrupted")
            progress(stage, share)

        return show
