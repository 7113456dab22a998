"""The fleet runner: every model once, errors recorded, nothing lost when it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from modelaudit.errors import InternalError, ModelFileError
from modelaudit.failure import Failure, failure_of
from modelaudit.fleet.runner import Job, attempt, run_fleet
from modelaudit.options import ScanOptions
from modelaudit.report import Report
from tests.formats.reports import clean

JOBS = [Job(name, f"key of {name}", ScanOptions(Path(name), Path("images"))) for name in "abc"]


class Scripted:
    """An executor that does the jobs in a given order, however often each is named."""

    def __init__(self, order: str, error: BaseException | None = None) -> None:
        self.order = order
        self.error = error
        self.asked: list[str] = []
        self.closed = False

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Report | Failure]]:
        self.asked = [job.name for job in jobs]
        known = {job.name: job for job in JOBS}
        try:
            for name in self.order:
                yield known[name], clean()
            if self.error:
                raise self.error
        finally:
            self.closed = True


def run(executor: Scripted, finished: Mapping[str, str] = {}) -> tuple[dict[str, str], list[str]]:
    """What is known in the end, and what was saved, in order."""
    saved: list[str] = []
    known = run_fleet(
        JOBS,
        executor,
        finished,
        lambda job, result: f"{job.name} {result.verdict}",
        lambda known: saved.append("".join(known)),
    )
    return known, saved


def test_results_in_any_order_are_saved_as_they_come() -> None:
    known, saved = run(Scripted("bca"))
    assert known == {name: f"{name} no-backdoor-found" for name in "abc"}
    assert saved == ["b", "bc", "bca", "bca"]


def test_what_is_finished_is_not_scanned_again() -> None:
    executor = Scripted("ac")
    known, _ = run(executor, {"b": "known"})
    assert executor.asked == ["a", "c"]
    assert known["b"] == "known"
    executor = Scripted("")
    assert run(executor, dict.fromkeys("abc", "known"))[0] == dict.fromkeys("abc", "known")
    assert executor.asked == []


def test_a_result_that_comes_twice_counts_once() -> None:
    _, saved = run(Scripted("abbac"))
    assert saved == ["a", "ab", "abc", "abc"]


def test_a_lost_result_is_noticed() -> None:
    with pytest.raises(InternalError, match="no result for b"):
        run(Scripted("ac"))


def test_an_interruption_reaches_the_executor_and_what_was_saved_stays() -> None:
    executor = Scripted("a", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(executor)
    assert executor.closed
    executor = Scripted("abc")
    with pytest.raises(OSError, match="disk is full"):
        run_fleet(JOBS, executor, {}, lambda job, result: job.name, _full_disk)
    assert executor.closed


def _full_disk(known: Mapping[str, str]) -> None:
    raise OSError("disk is full")


def test_every_error_becomes_a_report() -> None:
    def raising(error: Exception) -> Report | Failure:
        def scan(options: ScanOptions) -> Report:
            raise error

        return attempt(scan, JOBS[0])

    known = ModelFileError("damaged", stage="loading the model")
    assert raising(known) == failure_of(Path("a"), known)
    failure = raising(KeyError("x"))
    assert isinstance(failure, Failure)
    assert (failure.error.kind, failure.error.message) == (
        "InternalError",
        "internal error: KeyError: 'x'",
    )
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda options: (_ for _ in ()).throw(KeyboardInterrupt()), JOBS[0])
