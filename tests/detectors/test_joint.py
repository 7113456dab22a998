"""The joint test: what it takes from the other detectors, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from detectors import registry
from detectors.joint import EVIDENCE, Joint, excess, known_of_clean_models, logarithms_of
from detectors.lred import LRed
from detectors.mm_bd import MmBd
from detectors.types import ClassStatistic, DetectorResult
from tests.detectors.models import linear_input, orthonormal_rows

#: Logarithms of ten classes: spread as those of clean models.
SPREAD = np.linspace(-0.25, 0.25, 10)


def result(name: str, statistics: Sequence[float], reason: str = "") -> DetectorResult:
    return DetectorResult(
        detector=name,
        p_plugin=None,
        log_p_plugin=None,
        p_calibrated=None if reason else 0.5,
        target=None,
        sources={},
        classes=tuple(ClassStatistic(t, r, None, 0.0, {}, 0) for t, r in enumerate(statistics)),
        unit="",
        patterns={},
        image_passes=0.0,
        seconds=0.0,
        settings=settings_of(name),
        reason=reason,
    )


def settings_of(name: str) -> dict[str, object]:
    """The defaults, as a result has them."""
    detector = registry.build(name, {})
    assert isinstance(detector, LRed | MmBd)
    return asdict(detector) | ({"starts": 10, "steps": 30} if isinstance(detector, MmBd) else {})


def results(shift: float = 0.0, target: int = 4) -> dict[str, DetectorResult]:
    """Of three detectors that disagree about which classes are easy.

    Args:
        shift: of the target, in standard deviations of clean models.
    """
    known = known_of_clean_models()
    deviations = dict(zip(known.names, np.sqrt(np.diag(known.covariance)), strict=True))
    found = {}
    for seed, name in enumerate(EVIDENCE):
        logarithms = np.random.default_rng(seed).permutation(SPREAD)
        logarithms[target] = shift * deviations[name]
        found[name] = result(name, np.exp(logarithms).tolist())
    return found


def judged(
    found: Mapping[str, DetectorResult], twin: bool = False, classes: int = 10
) -> DetectorResult:
    data = linear_input(orthonormal_rows(classes), beta=1.0)
    return Joint(twin=twin)(replace(data, results=found))


def p_of(found: DetectorResult) -> float:
    assert found.p_calibrated is not None
    return found.p_calibrated


def test_a_class_that_is_easy_for_several_detectors_is_found() -> None:
    clean, shifted = judged(results()), judged(results(shift=5.0))
    assert p_of(clean) > 0.05
    assert p_of(shifted) < 0.001
    assert shifted.target == 4
    assert shifted.targets == (4,)


def test_a_class_that_is_easy_in_the_twin_too_is_less_suspicious() -> None:
    """Of a linear model the twin has the same classes: one with a long row is easy in both."""
    rows = orthonormal_rows(10)
    rows[4] *= 1.6
    data = linear_input(rows, beta=1.0, per_class=4)
    detectors = {name: registry.build(name, {}) for name in EVIDENCE}
    found = {name: detector(data) for name, detector in detectors.items()}
    data = replace(data, results=found)
    without = Joint(twin=False)(data)
    fresh = replace(data, generator=torch.Generator().manual_seed(0))
    assert p_of(Joint()(fresh)) > p_of(without)


@pytest.mark.parametrize("kept", [(), ("l-red",), ("l-red-warp", "l-red-generator")])
def test_it_needs_two_of_its_detectors(kept: tuple[str, ...]) -> None:
    found = judged({name: result(name, np.exp(SPREAD).tolist()) for name in kept})
    assert found.p_calibrated is None
    assert not found.applicable
    assert "two of l-red" in found.reason


def test_classes_differ_more_where_they_are_few() -> None:
    assert [excess(k) for k in (4, 9, 10, 1000)] == [2, 1.3, 1.3, 1.3]
    few = judged({n: result(n, [1.0, 1.6, 1.0]) for n in EVIDENCE}, classes=3)
    many = judged({n: result(n, [1.0, 1.6] + [1.0] * 8) for n in EVIDENCE}, classes=10)
    assert few.p_calibrated is not None
    assert many.p_calibrated is not None
    assert many.target == few.target == 1
    assert many.p_calibrated < few.p_calibrated


def test_detectors_without_a_test_are_left_out() -> None:
    found = results(shift=3.5)
    two = {name: found[name] for name in ("l-red", "l-red-sparse")}
    tied = two | {"mm-bd": replace(found["mm-bd"], reason="several classes tie")}
    assert p_of(judged(tied)) == p_of(judged(two))


def test_unknown_statistics_are_as_small_as_the_smallest_and_not_too_many() -> None:
    found = logarithms_of(np.array([0.0, 2.0, 1.0, 0.0]))
    assert found is not None
    values, unknown = found
    assert np.exp(values) == pytest.approx([1, 2, 1, 1])
    assert unknown == 2
    assert logarithms_of(np.array([0.0, 0.0, 0.0, 1.0])) is None
    assert logarithms_of(np.array([1.0, 2.0, np.nan, 1.0])) is None
    assert logarithms_of(np.zeros(4)) is None


def test_its_cost_is_the_suspects() -> None:
    assert judged(results(), twin=True).image_passes == (150 * 64 + 20 + 20) / 2
    assert judged(results()).image_passes == 20 / 2


def test_it_says_what_the_detectors_say_of_the_class() -> None:
    (note,) = judged(results(shift=5.0)).notes
    assert "l-red +" in note
    assert "mm-bd +" in note


def test_a_twin_that_is_not_like_the_suspect_is_not_compared_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detectors.joint._STEPS", 1)
    found = judged(results(), twin=True)
    assert "the clean twin sees 10%" in found.notes[0]
    assert p_of(found) == p_of(judged(results()))


@pytest.mark.parametrize(("name", "setting"), [("l-red", "pi"), ("mm-bd", "steps")])
def test_detectors_with_other_settings_are_left_out(name: str, setting: str) -> None:
    found = results(shift=3.5)
    other = replace(found[name], settings=dict(found[name].settings) | {setting: 0.5})
    without = {one: result for one, result in found.items() if one != name}
    assert p_of(judged(found | {name: other})) == p_of(judged(without))


def test_without_any_shift_no_class_is_named() -> None:
    same = {name: replace(one, classes=one.classes) for name, one in results().items()}
    same = {name: result(name, [1.0] * 10) for name in same}
    found = judged(same)
    assert found.target is None
    assert found.p_calibrated == 1.0


def test_what_is_shipped_is_a_covariance_of_all_that_is_looked_at() -> None:
    known = known_of_clean_models()
    assert set(EVIDENCE) <= set(known.names)
    assert (np.linalg.eigvalsh(known.covariance) > 0).all()
    assert known.weight > len(known.names) + 1


def test_parts_of_it_keep_their_mean() -> None:
    known = known_of_clean_models()
    part = known.part(("mm-bd", "l-red"), evidence=2)
    scale = known.covariance * (known.weight - len(known.names) - 1)
    place = known.names.index("mm-bd")
    assert part.scale[0, 0] == pytest.approx(scale[place, place])


def test_it_runs_when_its_evidence_is_there() -> None:
    ordered = registry.in_order(registry.default_names())
    assert set(registry.runs_after("joint")) == set(ordered[: ordered.index("joint")])
