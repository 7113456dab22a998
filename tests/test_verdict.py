"""Holm's correction and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors import registry
from detectors.types import DetectorResult
from modelaudit.checks import Check
from modelaudit.verdict import Verdict, decide, holm


def result(p: float | None, target: int | None = 3, name: str = "d") -> DetectorResult:
    return DetectorResult(
        detector=name,
        p_plugin=p,
        log_p_plugin=None,
        p_calibrated=p,
        target=target,
        sources={},
        classes=(),
        unit="",
        patterns={},
        image_passes=0,
        seconds=0,
        reason="" if p is not None else "no spread",
    )


def test_holm_known_answer() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_with_weights_known_answer() -> None:
    # p / w is 0.03, 0.02 and 0.04; the smallest is multiplied by 2, the next by 1, then by 2/3.
    adjusted = holm([0.01, 0.02, 0.04 * 2 / 3], [1 / 3, 1.0, 2 / 3])
    assert adjusted == pytest.approx([0.04, 0.04, 0.04])
    assert holm([0.001, 0.5], [1 / 3, 1.0]) == pytest.approx([0.004, 0.5])
    assert holm([0.03, 0.04], [2.0, 2.0]) == pytest.approx(holm([0.03, 0.04]))


def test_weighted_holm_holds_the_error_rate_and_uses_it_up() -> None:
    draw = np.random.default_rng(0)
    weights = [1.0, 1.0, 1 / 3, 1 / 3, 1 / 3]
    rejected = [min(holm(list(p), weights)) < 0.05 for p in draw.random((20_000, 5))]
    assert 0.045 < np.mean(rejected) < 0.0525


def test_a_detector_that_cannot_decide_alone_takes_nothing_from_the_others() -> None:
    fast, default = list(registry.FAST), registry.default_names()
    assert registry.REGISTRY["mm-bd"].floor < 0.05 / 2
    assert registry.weights(fast, 0.05) == dict.fromkeys(fast, 1.0)
    weights = registry.weights(default, 0.05)
    own = {name: registry.REGISTRY[name].weight for name in default}
    idle = {name for name in default if weights[name] != own[name]}
    assert idle == {"mm-bd"}
    worth = sum(own.values()) - own["mm-bd"]
    p_values = [0.001 if name == "l-red" else 1.0 for name in default]
    assert min(holm(p_values, list(weights.values()))) == pytest.approx(0.001 * worth, rel=1e-3)
    wide = registry.weights(default, 0.5)  # there it can decide alone
    assert wide == own
    assert registry.weights([], 0.05) == {}
    assert registry.weights(["of-another-package"], 0.05) == {"of-another-package": 1.0}


def test_holm_is_at_most_one_and_keeps_a_single_value() -> None:
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_backdoored_when_one_adjusted_p_is_small() -> None:
    decision = decide([result(0.02, 3), result(0.9, 5)], [], 0.05)
    assert decision.verdict is Verdict.BACKDOORED
    assert decision.targets == (3,)
    assert decision.p_holm == pytest.approx((0.04, 0.9))
    assert decision.found == ((0.04, 0),)


def test_one_unadjusted_p_below_alpha_is_not_enough() -> None:
    decision = decide([result(0.03, 3), result(0.9, 5)], [], 0.05)
    assert decision.verdict is Verdict.NO_BACKDOOR_FOUND
    assert decision.found == ()


def test_surest_target_comes_first_and_once() -> None:
    found = [result(0.01, 3), result(0.001, 5), result(0.002, 5)]
    decision = decide([result(None), *found], [], 0.05)
    assert decision.targets == (5, 3)
    assert [index for _, index in decision.found] == [2, 3, 1]


def test_a_detector_without_p_makes_a_negative_inconclusive_not_a_positive() -> None:
    assert decide([result(0.5), result(None)], [], 0.05).verdict is Verdict.INCONCLUSIVE
    assert decide([result(0.001), result(None)], [], 0.05).verdict is Verdict.BACKDOORED


def test_a_detector_that_cannot_judge_such_a_model_leaves_the_verdict_to_the_others() -> None:
    beside = replace(result(None), applicable=False)
    assert decide([result(0.5), beside], [], 0.05).verdict is Verdict.NO_BACKDOOR_FOUND
    alone = decide([beside], [], 0.05)
    assert alone.verdict is Verdict.INCONCLUSIVE
    assert "no spread" in alone.reasons[0]


def test_preflight_and_no_detectors_are_inconclusive() -> None:
    check = Check("clean-accuracy", "inconclusive", "too low")
    assert decide([], [check], 0.05).reasons == ("too low",)
    assert decide([], [], 0.05).verdict is Verdict.INCONCLUSIVE
