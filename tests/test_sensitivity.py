"""How strong an attack would have been seen: the inverse of the test and of Holm's correction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from detectors import calibration
from detectors.calibration import null_table
from detectors.gamma import SpreadPrior
from detectors.order_statistic import OrderStatisticTest, order_statistic_test
from detectors.types import ClassStatistic, DetectorResult
from modelaudit.sensitivity import looked_for, rejection_level
from modelaudit.verdict import Verdict, decide, holm


@pytest.fixture(autouse=True)
def _small_simulations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tables that are not shipped (where patterns are missing) need not be exact here."""
    monkeypatch.setattr(calibration, "CACHED_DRAWS", 20_000)
    null_table.cache_clear()
    yield
    null_table.cache_clear()


SIZES = [1.0, 1.1, 1.3, 1.25, 0.9, 1.5, 1.2, 1.05, 1.4, 1.15]


@pytest.mark.parametrize("level", [0.2, 0.05, 0.025, 1e-4, 1e-7])
@pytest.mark.parametrize("missing", [0, 2])
def test_the_critical_statistic_inverts_the_test(level: float, missing: int) -> None:
    r = 1 / np.array(SIZES)
    r[1 : 1 + missing] = 0
    test = order_statistic_test(r)
    critical = test.critical(level)
    assert critical is not None
    r[test.index] = critical
    assert order_statistic_test(r).p_calibrated == pytest.approx(level, rel=1e-5)


def test_no_statistic_is_critical_at_a_level_that_strays_alone_reach() -> None:
    r = 1 / np.array(SIZES)
    test = order_statistic_test(r, prior=SpreadPrior(15.0, 16.0, strays=0.02))
    assert test.critical(0.02) is None
    critical = test.critical(0.03)
    assert critical is not None
    r[test.index] = critical
    again = order_statistic_test(r, prior=SpreadPrior(15.0, 16.0, strays=0.02))
    assert again.p_calibrated == pytest.approx(0.03, rel=1e-5)


def test_without_a_test_there_is_no_critical_statistic() -> None:
    assert OrderStatisticTest(None, reason="too few").critical(0.05) is None


@pytest.mark.parametrize("others", [[], [0.9], [0.001], [0.02, 0.5], [0.001, 0.002, 0.9]])
@pytest.mark.parametrize("weight", [1.0, 1 / 3])
def test_rejection_level_is_where_holm_changes_its_mind(others: list[float], weight: float) -> None:
    weights = [1.0, 0.5, 1 / 3][: len(others)]
    level = rejection_level(list(zip(others, weights, strict=True)), 0.05, weight)
    assert holm([level * 0.999, *others], [weight, *weights])[0] < 0.05
    assert holm([level * 1.001, *others], [weight, *weights])[0] >= 0.05


def result(sizes: list[float | None], name: str = "l-red") -> DetectorResult:
    r = np.array([0.0 if size is None else 1 / size for size in sizes])
    test = order_statistic_test(r)
    assert test.index is not None
    return DetectorResult(
        detector=name,
        p_plugin=test.p_plugin,
        log_p_plugin=test.log_p_plugin,
        p_calibrated=test.p_calibrated,
        target=test.index,
        sources={},
        classes=tuple(
            ClassStatistic(t, float(r[t]), size, 0.9, {}, 1) for t, size in enumerate(sizes)
        ),
        unit="L2",
        patterns={},
        image_passes=0,
        seconds=0,
        null=test.null,
        settings={"embedding": "additive"},
        critical=test.critical,
    )


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_a_smaller_pattern_would_have_been_refused_and_a_larger_one_not(factor: float) -> None:
    both = [result(list(SIZES)), result([*SIZES[:-1], None], "l-red-sparse")]
    first, second = looked_for(both, 0.05)
    assert (first.level, second.level) == (0.025, 0.025)
    assert "global" in first.sees
    assert first.smallest == 0.9
    assert first.size is not None
    changed = list(SIZES)
    changed[4] = first.size * factor
    verdict = decide([result(changed), both[1]], [], 0.05).verdict
    assert (verdict is Verdict.BACKDOORED) == (factor < 1)


def test_a_statistic_that_is_no_reciprocal_has_no_size() -> None:
    one = result(list(SIZES))
    classes = tuple(ClassStatistic(c.target, c.statistic, 7.0, 0, {}, 0) for c in one.classes)
    other = DetectorResult(**{**vars(one), "classes": classes, "settings": {}})
    (entry,) = looked_for([other], 0.05)
    assert (entry.size, entry.smallest) == (None, None)
    assert entry.statistic is not None


def test_what_cannot_decide_alone_is_not_listed() -> None:
    r = 1 / np.array(SIZES)
    test = order_statistic_test(r, prior=SpreadPrior(15.0, 16.0, strays=0.02))
    one = replace(
        result(list(SIZES), "mm-bd"),
        p_calibrated=test.p_calibrated,
        null=test.null,
        critical=test.critical,
    )
    assert [entry.detector for entry in looked_for([one], 0.05)] == ["mm-bd"]
    assert [entry.detector for entry in looked_for([one], 0.01)] == []


def test_without_a_fitted_null_there_is_only_the_level() -> None:
    one = DetectorResult(**{**vars(result(list(SIZES))), "critical": None})
    (entry,) = looked_for([one], 0.01)
    assert (entry.statistic, entry.size, entry.level) == (None, None, 0.01)
    none = DetectorResult(**{**vars(one), "p_calibrated": None})
    assert looked_for([none], 0.01) == ()
