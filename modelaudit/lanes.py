"""Detectors side by side: several on a thread each fill a CPU better than one on all threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from modelaudit.classifier import Classifier
from modelaudit.memory import room
from modelaudit.stages import StageProgress

#: At most so many detectors run at a time. The dearest is about a quarter of a scan, so that more
#: would end no earlier; and each needs memory of its own.
MOST = 4
#: Bytes that a lane should have for itself, where memory is limited.
_ROOM = 2**30

_Result = TypeVar("_Result")


class Over(BaseException):
    """Raised within a detector, by the progress that it reports, when another one has failed."""


def lanes_wanted(device: str, threads: int, detectors: int) -> int:
    """How many of so many detectors run at a time in a process with so many threads.

    Args:
        device: its type. A GPU is filled by one detector.
    """
    return 1 if device == "cuda" else max(1, min(MOST, threads, detectors))


def threads_of_each(device: str, threads: int, detectors: int) -> int:
    """How many of a process's threads each of so many detectors has."""
    return threads // lanes_wanted(device, threads, detectors)


def lanes_of(
    classifier: Classifier, detectors: int, common_parameters: bool = True
) -> tuple[Classifier, ...]:
    """Classifiers for so many detectors to work with at the same time.

    Whatever the model may change while it runs is a copy: a network may keep what it has computed
    in its attributes. On a GPU, where memory is short, and where a copy cannot be made or does not
    say the same, there is one lane.

    Args:
        common_parameters: whether the lanes have those in common, to save memory. Not where
            somebody might change them.
    """
    wanted = lanes_wanted(classifier.device.type, torch.get_num_threads(), detectors)
    wanted = min(wanted, max(1, int(min(room() / _ROOM, MOST))))
    lanes = [classifier]
    while len(lanes) < wanted:
        other = _apart(classifier, common_parameters)
        if other is None:
            break
        lanes.append(other)
    return tuple(lanes)


def _apart(classifier: Classifier, common_parameters: bool) -> Classifier | None:
    """The same classifier for another thread, with counters of its own."""
    module = classifier.module
    if not isinstance(module, nn.Module):
        return None
    parameters = module.parameters() if common_parameters else ()
    other = copy.copy(classifier)
    try:
        other.module = copy.deepcopy(module, {id(one): one for one in parameters})
        if not _alike(copy.copy(classifier), other):
            return None
    except Exception:  # whatever the module is made of
        return None
    other.forwards = other.backwards = 0
    return other


@torch.no_grad()
def _alike(one: Classifier, other: Classifier) -> bool:
    """Whether a classifier and its copy say the same when they are asked in turn.

    A hook that is a closure is not copied: it goes on to write into the original, and the copy
    reads what was there when it was made.
    """
    draw = torch.Generator().manual_seed(0)
    few, more = (torch.rand(n, *one.input_shape, generator=draw) for n in (2, 3))
    first, second, third, fourth = one(few), other(more), one(more), other(few)
    return torch.equal(first, fourth) and torch.equal(second, third)


def side_by_side(
    names: Sequence[str],
    ready: Callable[[str], bool],
    work: Callable[[str, Classifier], _Result],
    lanes: Sequence[Classifier],
    end: Callable[[], None],
) -> Iterator[tuple[str, _Result]]:
    """What ``work`` returns for each name, as it comes.

    Args:
        names: in the order in which they are begun.
        ready: whether one can begin; asked again when another one has finished.
        work: is given a lane for itself.
        end: called when one has failed, or no more is wanted: nothing new begins, what runs is
            waited for, and what finishes all the same is kept.

    Raises:
        BaseException: what ``work`` raised first, after the results that were there.
    """
    waiting, free = list(names), list(lanes)
    if len(lanes) == 1:
        while (name := next(filter(ready, waiting), None)) is not None:
            waiting.remove(name)
            yield name, work(name, lanes[0])
        return
    running: dict[Future[_Result], tuple[str, Classifier]] = {}
    with _threads_shared(len(lanes)) as threads, _pool(len(lanes), threads) as pool:
        try:
            while waiting or running:
                while free and (name := next(filter(ready, waiting), None)) is not None:
                    waiting.remove(name)
                    lane = free.pop(0)
                    running[pool.submit(work, name, lane)] = name, lane
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                if failed := [one for one in finished if one.exception() is not None]:
                    end()
                    finished, _ = wait(running)
                for future in [one for one in finished if one.exception() is None]:
                    name, lane = running.pop(future)
                    free.append(lane)
                    yield name, future.result()
                for future in failed:
                    future.result()
        finally:
            end()


def _pool(lanes: int, threads: int) -> ThreadPoolExecutor:
    """A thread for each lane, with so many of torch's."""
    return ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (threads,))


@contextmanager
def _threads_shared(lanes: int) -> Iterator[int]:
    """Torch's threads for each lane; afterwards this thread has as many as before."""
    before = torch.get_num_threads()
    try:
        yield max(1, before // lanes)
    finally:
        torch.set_num_threads(before)


class Together:
    """The progress of what runs at the same time, as one.

    Args:
        costs: of all that is to run, by name.
        progress: told the names of those that run, and the share of all costs that is behind them.
    """

    def __init__(self, costs: Mapping[str, float], progress: StageProgress) -> None:
        self._costs = costs
        self._progress = progress
        self._shares: dict[str, float] = {}
        self._finished: set[str] = set()
        self._ended = False
        self._lock = threading.Lock()

    def __call__(self, name: str, share: float) -> None:
        """One of them is so far.

        Raises:
            Over: another one has ended for good; see :meth:`end`.
            BaseException: whatever the progress raises, to end them all.
        """
        with self._lock:
            if self._ended:
                raise Over
            self._shares[name] = share
            running = [one for one in self._shares if one not in self._finished]
            self._progress(", ".join(running), self._share())

    def finished(self, name: str) -> None:
        """One of them has its result."""
        with self._lock:
            self._shares[name] = 1.0
            self._finished.add(name)

    def end(self) -> None:
        """Ends the others when they next report."""
        self._ended = True

    def _share(self) -> float:
        done = sum(self._costs[name] * share for name, share in self._shares.items())
        return done / max(sum(self._costs.values()), 1e-9)
