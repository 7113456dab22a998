"""A found pattern, explained on a model whose answers are known: its class is its largest pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from detectors.finding import finding_of
from detectors.types import ClassStatistic, DetectorResult
from modelaudit.classifier import Classifier
from modelaudit.counting import Count
from modelaudit.examine import rejecting_findings
from modelaudit.findings import explain
from modelaudit.fitting import Fit
from modelaudit.images import CleanImages, select
from modelaudit.suspect import Suspect
from modelaudit.verdict import decide

#: Class of an image, and its largest pixel; +0.5 on pixel 0 flips those below 0.5.
POOL = [(0, 0.3), (1, 0.3), (1, 0.9), (1, 0.4), (2, 0.2), (2, 0.9), (3, 0.1)]
CHOSEN = [0, 1, 4, 6]


def images() -> CleanImages:
    pixels = torch.zeros(len(POOL), 1, 2, 2)
    for row, (label, value) in enumerate(POOL):
        pixels[row, 0, label // 2, label % 2] = value
    names = tuple(f"{row}.png" for row in range(len(POOL)))
    return CleanImages(
        pixels=pixels,
        labels=torch.tensor([label for label, _ in POOL]),
        files=tuple(map(Path, names)),
        digests=names,
        was_resized=(False,) * len(POOL),
        class_names=("zero", "one", "two", "three"),
    )


def suspect(chosen: list[int] = CHOSEN) -> Suspect:
    pool = images()
    classifier = Classifier(lambda x: 10 * x.flatten(1), 4, (1, 2, 2))
    fit = Fit(pool, cast(Any, None), {}, ())
    predictions = classifier.predict(pool.pixels)
    return Suspect(cast(Any, None), classifier, fit, select(pool, chosen), predictions, None)


def result(
    name: str = "additive", p: float = 0.001, target: int | None = 0, **more: Any
) -> DetectorResult:
    weights = {1: 0.7, 2: 0.29, 3: 0.01}
    pattern = torch.tensor([[[0.5, 0.0], [0.0, 0.0]]])
    values: dict[str, Any] = {
        "patterns": {0: pattern, 3: pattern},
        "sources": weights,
        "stamp": lambda x, theta: (x + theta).clamp(0, 1),
    }
    return DetectorResult(
        detector=name,
        p_plugin=p,
        log_p_plugin=None,
        p_calibrated=p,
        target=target,
        classes=tuple(ClassStatistic(t, 2.0, 0.5, 1.0, weights, 5) for t in range(4)),
        unit="L2",
        image_passes=0,
        seconds=0,
        settings={"embedding": name},
        **(values | more),
    )


def explained(*results: DetectorResult, chosen: list[int] = CHOSEN) -> Any:
    return explain(results, decide(results, [], 0.05), suspect(chosen))


def test_flips_are_counted_on_the_sources_images_only() -> None:
    (finding,) = explained(result())
    assert [(s.index, s.name) for s in finding.sources] == [(1, "one"), (2, "two")]
    assert (finding.searched.flips, finding.searched.images) == (2, 2)
    assert (finding.held_out.flips, finding.held_out.images) == (1, 3)
    assert finding.held_out.interval == pytest.approx(Count(1, 3).interval)
    assert (finding.target.name, finding.size, finding.embedding) == ("zero", 0.5, "additive")
    assert finding.note == ""


def test_images_that_the_detector_left_out_are_held_out() -> None:
    """Of the chosen images 0, 1, 4 and 6 it used the last two, so 1 is unseen."""
    (finding,) = explained(result(searched=torch.tensor([False, False, True, True])))
    assert (finding.searched.flips, finding.searched.images) == (1, 1)
    assert (finding.held_out.flips, finding.held_out.images) == (2, 4)


def test_pictures_show_an_image_that_is_flipped() -> None:
    (finding,) = explained(result())
    assert [p.kind for p in finding.pictures] == ["clean", "stamped", "difference", "pattern"]
    assert finding.pictures[0].caption == "clean image of class 1 (one)"
    assert "class 0 (zero)" in finding.pictures[1].caption


def test_without_further_images_the_report_says_so() -> None:
    (finding,) = explained(result(), chosen=list(range(len(POOL))))
    assert finding.held_out is None
    assert "not seen" in finding.note
    assert finding.searched.images == 5
    assert len(finding.pictures) == 4


def test_an_image_with_the_bytes_of_a_used_one_is_not_held_out() -> None:
    known = suspect()
    twins = tuple("1.png" if d == "2.png" else d for d in known.pool.digests)
    pool = CleanImages(**{**vars(known.pool), "digests": twins})
    known = Suspect(**{**vars(known), "fit": Fit(pool, known.fit.choice, {}, ())})
    one = result()
    (finding,) = explain([one], decide([one], [], 0.05), known)
    assert finding.held_out is not None
    assert finding.held_out.images == 2


def test_the_surest_detector_with_a_pattern_explains_each_target() -> None:
    blind = result("blind", 1e-9, stamp=None)
    found = explained(blind, result("a", 0.002), result("b", 0.001), result("c", 0.01, target=3))
    assert [(f.detector, f.target.index) for f in found] == [("b", 0), ("c", 3)]


def test_a_detector_without_a_pattern_says_so() -> None:
    (finding,) = explained(result("blind", stamp=None))
    assert (finding.searched, finding.held_out, finding.pictures) == (None, None, ())
    assert "blind" in finding.note


def test_nothing_found_nothing_explained() -> None:
    assert explained(result(p=0.5)) == ()


def test_all_to_all_every_class_becomes_another() -> None:
    def turned(x: Tensor, theta: Tensor) -> Tensor:
        """Class s becomes s + 1, but only of images that are bright enough."""
        moved = x.flatten(1).roll(1, 1).view(x.shape)
        return torch.where(x.flatten(1).amax(1).view(-1, 1, 1, 1) > 0.25, moved, x)

    weights = dict.fromkeys(range(4), 0.25)
    more = {"patterns": {1: torch.zeros(1, 2, 2)}, "stamp": turned, "shift": 1, "sources": weights}
    (finding,) = explained(result("additive", target=None, **more))
    assert (finding.target, finding.shift) == (None, 1)
    assert (finding.searched.flips, finding.searched.images) == (2, 4)
    assert (finding.held_out.flips, finding.held_out.images) == (3, 3)
    assert "class 1 (one)" in finding.pictures[1].caption


def test_a_pattern_for_all_classes_is_not_examined_as_one_for_a_single_class() -> None:
    """Also where its shift is a class that another detector has found."""
    sure = result("all", 0.0001, target=None, shift=3)
    found = [
        result("none", 0.5),
        result("one", target=3),
        sure,
        result("blind", target=2, stamp=None),
    ]
    pattern = finding_of(sure)
    assert pattern is not None
    assert (pattern.detector, pattern.target) == ("all", 3)
    examined = rejecting_findings(found, decide(found, [], 0.05))
    assert [(one.detector, one.target) for one in examined] == [("one", 3)]


def test_a_pattern_that_is_no_image_is_shown_on_a_grid() -> None:
    def darken(x: Tensor, theta: Tensor) -> Tensor:
        return x * theta.view(-1, 1, 1, 1)

    (finding,) = explained(result(patterns={0: torch.tensor([0.5])}, stamp=darken))
    assert finding.pictures[3].caption == "pattern applied to a grid"


def judge(p: float = 0.001) -> DetectorResult:
    """A detector without a pattern, that judges what others found."""
    return result("joint", p=p, patterns={}, stamp=None, sources={})


def test_a_detector_that_judges_others_shows_the_pattern_of_the_surest() -> None:
    lenders = result("l-red", p=0.4), result("l-red-sparse", p=0.2)
    elsewhere = result("mm-bd", p=0.5, target=3)
    (report,) = explained(*lenders, elsewhere, judge())
    assert report.detector == "joint"
    assert report.target.index == 0
    assert report.held_out is not None
    assert report.pictures
    assert report.size is None
    assert "the pattern of size 0.5 (L2) is that of l-red-sparse" in report.note


def test_a_detector_without_patterns_shows_that_of_any_other() -> None:
    neurons = replace(judge(), detector="l-red-neurons")
    (report,) = explained(result("l-red-warp", p=0.3), result("l-red", p=0.4), neurons)
    assert report.detector == "l-red-neurons"
    assert "is that of l-red-warp" in report.note


def test_without_a_pattern_for_its_class_it_shows_none() -> None:
    (report,) = explained(result("l-red", p=0.4, target=3), judge())
    assert report.detector == "joint"
    assert not report.pictures
    assert "without a pattern" in report.note


def test_a_lent_pattern_is_examined_once() -> None:
    both = (result("l-red", p=0.0001), judge())
    (pattern,) = rejecting_findings(both, decide(both, [], 0.05))
    assert pattern.detector == "l-red"


def test_every_target_of_a_detector_has_a_report_of_its_own() -> None:
    """The surest pattern for each, whichever detector it is of; the sources are those of each."""
    two = result("l-red", others=(3,), patterns={0: torch.zeros(1, 2, 2), 3: torch.zeros(1, 2, 2)})
    weights = {target: {1: 0.25, 2: 0.75} for target in (0, 3)}
    two = replace(
        two, classes=tuple(ClassStatistic(t, 2.0, 0.5, 1.0, w, 5) for t, w in weights.items())
    )
    first, second = explained(two, result("l-red-sparse", p=0.2, target=3))
    assert [one.target.index for one in (first, second)] == [0, 3]
    assert {one.detector for one in (first, second)} == {"l-red"}
    assert [source.index for source in second.sources] == [2, 1]
    examined = rejecting_findings([two], decide([two], [], 0.05))
    assert [one.target for one in examined] == [0, 3]
    assert decide([two], [], 0.05).targets == (0, 3)


def test_a_detector_without_patterns_borrows_one_for_each_target() -> None:
    lender = result(
        "l-red", p=0.3, others=(3,), patterns=dict.fromkeys((0, 3), torch.zeros(1, 2, 2))
    )
    blind = result("mm-bd", patterns={}, stamp=None, sources={}, others=(3,))
    reports = explained(lender, blind)
    assert [one.target.index for one in reports] == [0, 3]
    assert all("is that of l-red" in one.note for one in reports)
