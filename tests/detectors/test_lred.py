"""L-RED, U-RED and P-RED on models with a planted backdoor, and the registry."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detectors import registry
from detectors.lred import LRed
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.models import SIDE, Planted, Shifted, linear_input, orthonormal_rows

CLASSES = 8


def planted(sources: tuple[int, ...] = (1, 2, 3), target: int = 4) -> DetectorInput:
    rows = orthonormal_rows(CLASSES + 1)
    model = Planted(rows[:CLASSES], rows[CLASSES], list(sources), target)
    clean = clean_input()
    classifier = Classifier(model, CLASSES, (1, SIDE, SIDE))
    return DetectorInput(classifier, clean.pixels, clean.labels, clean.generator)


def clean_input() -> DetectorInput:
    """A little noise in the rows gives the sizes of the clean targets their spread."""
    rows = orthonormal_rows(CLASSES + 1)[:CLASSES]
    generator = torch.Generator().manual_seed(5)
    data = linear_input(rows, 0.9, per_class=4)
    pixels = (data.pixels + 0.03 * torch.randn(data.pixels.shape, generator=generator)).clamp(0, 1)
    return DetectorInput(data.classifier, pixels, data.labels, data.generator)


def test_backdoor_is_found_with_target_and_source() -> None:
    result = LRed()(planted())
    assert result.target == 4
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.05
    assert set(sorted(result.sources, key=result.sources.__getitem__)[-3:]) == {1, 2, 3}
    assert sum(result.sources.values()) == pytest.approx(1, abs=1e-5)
    assert len(result.classes) == CLASSES
    assert result.patterns[4].shape == (1, SIDE, SIDE)
    assert result.image_passes > 0


def test_clean_model_is_not_flagged() -> None:
    result = LRed()(clean_input())
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05


class Brightness(torch.nn.Module):
    """The class whose brightness, ``(k + 0.5) / CLASSES``, an image's mean is nearest to."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = (torch.arange(CLASSES) + 0.5) / CLASSES
        return -100 * (x.mean((1, 2, 3))[:, None] - own) ** 2


@pytest.mark.parametrize(("embedding", "applicable"), [("warp", False), ("additive", True)])
def test_where_no_warp_leads_to_any_class_the_others_decide(
    embedding: str, applicable: bool
) -> None:
    """Pixels that are all alike stay what they are wherever they go."""
    labels = torch.arange(CLASSES).repeat_interleave(2)
    pixels = ((labels + 0.5) / CLASSES)[:, None, None, None].expand(-1, 1, SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    classifier = Classifier(Brightness(), CLASSES, (1, SIDE, SIDE))
    data = DetectorInput(classifier, pixels, labels, generator)
    result = LRed(embedding=embedding, tau_max=2)(data)
    assert result.applicable is applicable
    assert result.p_calibrated is None
    assert "0 classes with a pattern are too few" in result.reason


def test_a_pattern_of_size_0_leaves_no_test_and_finite_numbers() -> None:
    """The model says class 0 whatever it is shown."""
    result = LRed(tau_max=2)(linear_input(torch.zeros(5, SIDE**2), 0.9, per_class=2))
    assert "not finite" in result.reason
    assert [(one.size, one.statistic) for one in result.classes] == [(0.0, 0.0), *[(None, 0.0)] * 4]


def test_p_red_looks_at_every_class_pair() -> None:
    result = LRed(sources="pairs")(planted(sources=(2,)))
    assert len(result.classes) == CLASSES * (CLASSES - 1)
    assert result.target == 4
    assert result.sources == {2: pytest.approx(1.0)}


def test_an_all_to_all_backdoor_is_one_shift_that_stands_out() -> None:
    rows, clean = orthonormal_rows(CLASSES + 1), clean_input()
    model = Shifted(rows[:CLASSES], rows[CLASSES])
    classifier = Classifier(model, CLASSES, (1, SIDE, SIDE))
    data = DetectorInput(classifier, clean.pixels, clean.labels, clean.generator)
    result = LRed(sources="all-to-all", pi=0.5, largest=5.0)(data)
    assert result.shift == 1
    assert result.target is None
    assert result.targets == tuple(range(CLASSES))
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.01
    assert len(result.classes) == CLASSES - 1


def test_no_shift_of_a_clean_model_stands_out() -> None:
    result = LRed(sources="all-to-all", pi=0.5)(clean_input())
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05


def test_four_classes_have_too_few_shifts_to_judge() -> None:
    result = LRed(sources="all-to-all", pi=0.5)(linear_input(orthonormal_rows(4), 0.9))
    assert result.p_calibrated is None
    assert not result.applicable


def test_u_red_keeps_uniform_weights() -> None:
    result = LRed(weights="uniform")(planted())
    for one in result.classes:
        assert list(one.weights.values()) == pytest.approx([1 / (CLASSES - 1)] * (CLASSES - 1))


def test_same_input_gives_the_same_numbers() -> None:
    a, b = LRed()(planted()), LRed()(planted())
    assert a.classes == b.classes
    assert a.p_calibrated == b.p_calibrated


def test_subset_of_source_classes_is_enough() -> None:
    data = planted()
    keep = data.labels < 4
    data = DetectorInput(data.classifier, data.pixels[keep], data.labels[keep], data.generator)
    result = LRed()(data)
    assert len(result.classes) == CLASSES
    assert result.target == 4
    assert set(result.sources) == {0, 1, 2, 3}


def test_target_without_any_source_is_not_searched() -> None:
    data = planted()
    keep = data.labels == 3
    data = DetectorInput(data.classifier, data.pixels[keep], data.labels[keep], data.generator)
    result = LRed()(data)
    assert 3 not in {one.target for one in result.classes}
    assert "target 3 was not searched" in result.notes[0]


def test_settings_in_the_result_are_the_ones_used() -> None:
    used = LRed(schedule="paper", tau_max=2)(planted()).settings
    assert (used["delta"], used["growth"], used["refine"], used["tau_max"]) == (1e-4, 0.0, 0, 2)


def test_settings_from_text() -> None:
    detector = registry.build("l-red", {"schedule": "paper", "pi": "0.8", "refine": "2"})
    assert detector == LRed(schedule="paper", pi=0.8, refine=2)
    sparse = registry.build("l-red-sparse", {})
    assert sparse == LRed(name="l-red-sparse", embedding="sparse")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("nope", {}, "there are: l-red, l-red-sparse, l-red-warp"),
        ("l-red", {"nope": "1"}, "no setting 'nope'"),
        ("l-red", {"pi": "many"}, "type float"),
        ("l-red", {"pi": "1.5"}, "between 0 and 1"),
        ("l-red", {"pi": "nan"}, "between 0 and 1"),
        ("l-red", {"schedule": "slow"}, "one of: fast, paper"),
        ("l-red", {"embedding": "magic"}, "one of: additive, sparse"),
        ("l-red", {"delta": "-1"}, "negative"),
        ("l-red", {"growth": "inf"}, "finite"),
        ("l-red", {"refine": "2.5"}, "type int"),
    ],
)
def test_bad_settings_say_what_would_fit(name: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        registry.build(name, settings)


@pytest.mark.parametrize(
    ("classes", "settings", "images", "sources"),
    [
        (10, {}, 80, 9),
        (12, {}, 96, 11),
        (43, {}, 86, 42),
        (200, {}, 200, 96),
        (43, {"full_classes": 0}, 344, 42),
        (43, {"sources": "pairs"}, 344, 1),
        (10, {"sources": "all-to-all", "per_class": 4}, 40, 10),
        (43, {"sources": "all-to-all", "per_class": 4}, 43, 43),
    ],
)
def test_many_classes_give_fewer_images_each(
    classes: int, settings: dict[str, Any], images: int, sources: int
) -> None:
    """Eight images per class; a pattern sees no more than those of twelve classes."""
    labels = torch.arange(classes).repeat_interleave(8)
    chosen, rows = LRed(**settings).searched(labels, classes, torch.Generator())
    assert int(chosen.sum()) == images
    assert rows.support.sum(1).unique().tolist() == [sources]


def test_detectors_leave_out_other_classes() -> None:
    labels = torch.arange(200).repeat_interleave(8)
    generator = torch.Generator().manual_seed(0)
    searched = [LRed(name=name).searched(labels, 200, generator)[1].support for name in "ab"]
    again = LRed(name="a").searched(labels, 200, generator)[1].support
    assert (searched[0] == again).all()
    assert (searched[0] != searched[1]).any(1).all()
