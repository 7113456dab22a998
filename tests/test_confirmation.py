"""Held-out images can take a finding back, on a model whose class is its largest pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from detectors.types import ClassStatistic, DetectorResult
from modelaudit.classifier import Classifier
from modelaudit.confirmation import confirmed
from modelaudit.fitting import Fit
from modelaudit.images import CleanImages, select
from modelaudit.sensitivity import looked_for
from modelaudit.suspect import Suspect
from modelaudit.verdict import Verdict, decide


def suspect(unseen_values: list[float]) -> Suspect:
    """Two images of class 1 that the search saw, and others; +0.5 on pixel 0 flips those < 0.5."""
    values = [0.3, 0.4, *unseen_values]
    pixels = torch.zeros(len(values), 1, 2, 2)
    pixels[:, 0, 0, 1] = torch.tensor(values)
    names = tuple(map(str, range(len(values))))
    pool = CleanImages(
        pixels,
        torch.ones(len(values), dtype=torch.long),
        tuple(map(Path, names)),
        names,
        (False,) * len(names),
    )
    classifier = Classifier(lambda x: 10 * x.flatten(1), 4, (1, 2, 2))
    fit = Fit(pool, cast(Any, None), {}, ())
    predictions = classifier.predict(pixels)
    return Suspect(
        cast(Any, None), classifier, fit, select(pool, [0, 1]), predictions, reference_error=None
    )


def result(p: float) -> DetectorResult:
    pattern = torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
    return DetectorResult(
        detector="additive",
        p_plugin=p,
        log_p_plugin=None,
        p_calibrated=p,
        target=0,
        sources={1: 1.0},
        classes=(ClassStatistic(0, 2.0, 0.5, 1.0, {1: 1.0}, 5),),
        unit="L2",
        patterns={0: pattern},
        image_passes=0,
        seconds=0,
        stamp=lambda x, theta: (x + theta).clamp(0, 1),
        critical=lambda level: 1.5,
    )


def p_after(unseen_values: list[float], p: float = 0.001) -> tuple[float | None, str]:
    (one,) = confirmed([result(p)], suspect(unseen_values), 0.05)
    return one.p_calibrated, " ".join(one.notes)


def test_a_pattern_that_works_on_unseen_images_stays() -> None:
    assert p_after([0.3] * 8 + [0.9] * 2) == (0.001, "")


def test_a_pattern_that_works_on_its_own_images_alone_is_taken_back() -> None:
    p, note = p_after([0.9] * 10)
    assert p == 1.0
    assert "p = 1.0e-03 is taken back" in note
    assert "flips 2 of 2 images of the search, but 0 of 10" in note


def test_what_is_taken_back_would_not_have_been_seen() -> None:
    results = confirmed([result(0.001)], suspect([0.9] * 10), 0.05)
    (entry,) = looked_for(results, 0.05)
    assert (entry.statistic, entry.size, entry.smallest) == (None, None, 0.5)
    assert decide(results, [], 0.05).verdict is Verdict.NO_BACKDOOR_FOUND


def test_images_that_the_detector_left_out_are_unseen() -> None:
    """The search used one of the two images; the other is one of the eight that it fails on."""
    one = replace(result(0.001), searched=torch.tensor([True, False]))
    known = suspect([0.9] * 7)
    assert confirmed([one], known, 0.05)[0].p_calibrated == 0.001  # 1 of 8 is too many
    pixels = known.pool.pixels.clone()
    pixels[1, 0, 0, 1] = 0.9
    pool = replace(known.pool, pixels=pixels)
    known = replace(known, fit=Fit(pool, cast(Any, None), {}, ()), chosen=select(pool, [0, 1]))
    (taken_back,) = confirmed([one], known, 0.05)
    assert "flips 1 of 1 images of the search, but 0 of 8" in taken_back.notes[0]


def test_few_or_no_unseen_images_take_nothing_back() -> None:
    assert p_after([0.9] * 7) == (0.001, "")
    assert p_after([]) == (0.001, "")


def test_what_is_not_significant_is_left_alone() -> None:
    assert p_after([0.9] * 10, p=0.2) == (0.2, "")


def test_what_rests_on_a_pattern_is_taken_back_with_it() -> None:
    lender = replace(result(0.001), detector="l-red")
    judge = replace(result(0.001), detector="joint", patterns={}, stamp=None, sources={})
    both = confirmed((lender, judge), suspect([0.9] * 20), 0.05)
    assert [one.p_calibrated for one in both] == [1.0, 1.0]
    both = confirmed((lender, judge), suspect([0.3] * 20), 0.05)
    assert [one.p_calibrated for one in both] == [0.001, 0.001]


def test_a_pattern_that_is_only_shown_takes_nothing_back() -> None:
    lender = replace(result(0.2), detector="l-red-warp")
    neurons = replace(result(0.001), detector="l-red-neurons", patterns={}, stamp=None, sources={})
    both = confirmed((lender, neurons), suspect([0.9] * 20), 0.05)
    assert [one.p_calibrated for one in both] == [0.2, 0.001]


def test_of_two_targets_the_one_whose_pattern_works_stays() -> None:
    """The pattern for class 2 flips the two images of the search, that of class 0 all."""
    known, one = suspect([0.9] * 10), result(0.001)
    both = replace(
        one,
        others=(2,),
        patterns={0: lit(0, 1.0), 2: lit(2, 0.5)},
        classes=(*one.classes, ClassStatistic(2, 2.0, 0.5, 1.0, {1: 1.0}, 5)),
    )
    (left,) = confirmed([both], known, 0.05)
    assert (left.targets, left.p_calibrated) == ((0,), 0.001)
    assert "class 2 is taken back: the pattern flips 2 of 2 images" in left.notes[0]
    (left,) = confirmed([replace(both, patterns={0: lit(0, 0.5), 2: lit(2, 1.0)})], known, 0.05)
    assert left.targets == (2,)
    (left,) = confirmed([replace(both, patterns={0: lit(0, 0.5), 2: lit(2, 0.5)})], known, 0.05)
    assert left.p_calibrated == 1.0
    assert len(left.notes) == 2


def lit(pixel: int, by: float) -> torch.Tensor:
    """A pattern that makes one of the four pixels, and so its class, brighter."""
    return torch.zeros(4).index_fill_(0, torch.tensor(pixel), by).view(1, 2, 2)
