"""A scan that has no time left says what it knows, and what it did not look for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jsonschema
import pytest

from detectors import registry
from modelaudit import conditions as conditions_module
from modelaudit.conditions import Clock, Conditions, Stopped
from modelaudit.cut_short import Cause, CutShort, LeftOut
from modelaudit.detect import reasons_to_doubt
from modelaudit.errors import ScanInterrupted, UsageError
from modelaudit.finished import FinishedDetector
from modelaudit.formats import FORMATS
from modelaudit.formats.wording import next_step
from modelaudit.isolation.limits import seconds_of
from modelaudit.report import Report, schema
from modelaudit.run import run_scan
from modelaudit.scanning import ScanOptions, scan
from tests.conftest import BUNDLED
from tests.formats import reports

OPTIONS = ScanOptions(
    BUNDLED / "clean.onnx",
    BUNDLED / "images",
    images_per_class=1,
    detectors=("l-red-sparse", "l-red", "mm-bd"),
    settings={
        "l-red-sparse": {"tau_max": "2"},
        "l-red": {"tau_max": "16"},
        "mm-bd": {"starts": "2"},
    },
    time_budget=60,
)


@dataclass
class Scanner:
    """Scans with a clock that only moves when a detector has finished."""

    now: float = 0.0

    def __call__(self, options: ScanOptions, finished: int, stop: bool = False) -> Report:
        """The report when the time is over, or somebody stops it, after so many detectors."""
        done: list[FinishedDetector] = []
        conditions = Conditions(started=0.0, keep=lambda one: keep(one))

        def keep(one: FinishedDetector) -> None:
            done.append(one)
            end(len(done))

        def end(number: int) -> None:
            if number == finished and stop:
                conditions.stop.set()
            elif number == finished:
                self.now = 61.0

        end(0)
        report = scan(options, conditions=conditions).report
        jsonschema.Draft202012Validator(schema()).validate(report.to_dict())
        return report


@pytest.fixture
def scanner(monkeypatch: pytest.MonkeyPatch) -> Scanner:
    scanner = Scanner()
    fake = SimpleNamespace(monotonic=lambda: scanner.now)
    monkeypatch.setattr(conditions_module, "time", fake)
    return scanner


def ran(report: Report) -> list[str]:
    return [one.detector for one in report.detectors if one.p_holm is not None]


def cut_short(report: Report) -> tuple[str, tuple[str, ...]] | None:
    """The cause, and the detectors left out."""
    cut = report.cut_short
    return cut and (cut.cause, tuple(one.detector for one in cut.left_out))


def test_time_enough_leaves_nothing_out(scanner: Scanner) -> None:
    report = scanner(OPTIONS, finished=99)
    assert report.cut_short is None
    assert [one.detector for one in report.detectors] == list(OPTIONS.detectors)


def test_after_the_fast_ones_the_verdict_is_theirs(scanner: Scanner) -> None:
    """The cheap ones ran first, whatever the order on the command line; Holm is over these two."""
    report = scanner(OPTIONS, finished=2)
    assert cut_short(report) == ("time budget", ("l-red-sparse",))
    assert ran(report) == ["l-red", "mm-bd"]
    assert report.verdict == "no-backdoor-found"
    assert report.reasons == ()
    assert "Not looked for: patches and single pixels" in str(report.cut_short)
    p_values = sorted(one.p_calibrated or 0 for one in report.detectors if one.p_holm is not None)
    smallest = min(one.p_holm for one in report.detectors if one.p_holm is not None)
    assert smallest == pytest.approx(min(1.0, 2 * p_values[0]))
    assert report.detectors[0].reason == "left out: the time budget was used up"


def test_before_that_it_is_inconclusive(scanner: Scanner) -> None:
    report = scanner(OPTIONS, finished=1)
    assert cut_short(report) == ("time budget", ("l-red-sparse", "l-red"))
    assert report.verdict == "inconclusive"
    assert report.reasons == ("the time budget was used up before l-red had finished",)


def test_no_time_at_all(scanner: Scanner) -> None:
    report = scanner(OPTIONS, finished=0)
    assert ran(report) == []
    assert report.verdict == "inconclusive"


def test_what_was_found_in_time_counts(scanner: Scanner) -> None:
    names = ("l-red-generator", "l-red-sparse")
    backdoored = replace(OPTIONS, model=BUNDLED / "badnets.onnx", detectors=names, settings={})
    report = scanner(backdoored, finished=1)
    assert report.verdict == "backdoored"
    assert report.findings[0].pictures
    assert cut_short(report) == ("time budget", ("l-red-generator",))


def test_a_detector_is_stopped_where_it_is() -> None:
    """An interruption in the middle of the second detector ends it."""
    stop, seen = threading.Event(), []

    def progress(stage: str, share: float) -> None:
        seen.append((stage, share))
        if stage == "l-red" and share > 0:
            stop.set()

    endless = replace(OPTIONS, time_budget=None)
    report = scan(endless, progress, conditions=Conditions(stop=stop)).report
    assert cut_short(report) == ("interrupted", ("l-red-sparse", "l-red"))
    assert report.interrupted
    assert report.verdict == "inconclusive"
    assert "interrupted before l-red-sparse, l-red had finished" in report.reasons[0]
    assert 0 < max(share for stage, share in seen if stage == "l-red") < 0.5
    assert "l-red-sparse" not in {stage for stage, _ in seen}


def test_examinations_are_left_out_when_the_time_is_over(scanner: Scanner) -> None:
    options = replace(OPTIONS, examine=("strip", "latent-view"), detectors=("mm-bd", "l-red"))
    options = replace(options, settings={})
    report = scanner(options, finished=2)
    assert cut_short(report) == ("time budget", ())
    assert report.verdict == "no-backdoor-found"
    assert {one.reason for one in report.examinations} == {"left out: the time budget was used up"}
    assert "examinations are left out" in str(report.cut_short)


def test_an_interruption_before_anything_is_known_is_an_error() -> None:
    stop = threading.Event()

    def progress(stage: str, share: float) -> None:
        if stage == "reading the clean images":
            stop.set()

    with pytest.raises(ScanInterrupted) as caught:
        run_scan(OPTIONS, None, progress, stop=stop)
    assert caught.value.stage == "reading the clean images"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_it(name: str) -> None:
    text = FORMATS[name](reports.cut_short())
    assert "l-red-warp" in text
    assert any(words in " ".join(text.split()) for words in ("time budget", "time-budget"))


@pytest.mark.parametrize(
    ("cause", "kept", "words"),
    [
        ("time budget", True, "The same command goes on"),
        ("interrupted", True, "The same command goes on"),
        ("time budget", False, "a larger --time-budget"),
        ("interrupted", False, "nothing was kept"),
    ],
)
def test_the_advice_is_what_the_command_can_do(cause: Cause, kept: bool, words: str) -> None:
    advice = next_step(replace(reports.clean(), cut_short=CutShort(cause, (), kept)))
    assert words in advice
    assert ("goes on" in advice) == kept


def test_when_to_doubt() -> None:
    cut = CutShort("time budget", (LeftOut("l-red-warp", "warps"),))
    assert reasons_to_doubt(("mm-bd", "l-red"), cut) == ()
    assert reasons_to_doubt(("mm-bd",), cut) != ()
    assert reasons_to_doubt(("mm-bd", "l-red"), replace(cut, cause="interrupted")) != ()
    assert reasons_to_doubt((), CutShort("interrupted", ())) == ()
    assert reasons_to_doubt((), None) == ()


def test_the_cheapest_begin_and_what_another_waits_for() -> None:
    ordered = registry.in_order((*reversed(registry.REGISTRY), "of-another-package"))
    assert set(ordered[: len(registry.FAST)]) == set(registry.FAST)
    assert ordered[-1] == "of-another-package"
    assert registry.in_order(ordered) == registry.in_order(reversed(ordered))
    for name in registry.REGISTRY:
        before = ordered[: ordered.index(name)]
        assert set(registry.runs_after(name)) <= set(before)
        assert registry.cost(name) > 0


def test_a_clock_without_a_budget_never_stops() -> None:
    clock = Clock(Conditions(started=-1e9), None)
    clock.limited(lambda stage, share: None)("searching", 0.5)
    assert clock.stopped is None


def test_an_interruption_counts_before_the_budget() -> None:
    conditions = Conditions(started=-1e9)
    conditions.stop.set()
    clock = Clock(conditions, 1)
    with pytest.raises(Stopped) as caught:
        clock.limited(lambda stage, share: None)("searching", 0.5)
    assert clock.stopped == "interrupted"
    assert caught.value.reason == "left out: the scan was interrupted"
    assert not isinstance(caught.value, Exception)


def test_times() -> None:
    assert [seconds_of("--time-budget", t) for t in ("90", "90s", "10m", "2h")] == [
        90,
        90,
        600,
        7200,
    ]
    for bad in ("0", "0m", "", "ten", "-5m", "1.5h", "5x"):
        with pytest.raises(UsageError, match=r"--time-budget .*: expected a time such as 90s"):
            seconds_of("--time-budget", bad)
    with pytest.raises(UsageError, match="at least 1 second"):
        replace(OPTIONS, time_budget=0)
