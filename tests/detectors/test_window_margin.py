"""Margins in windows: a trigger that works only as a whole, at one place, and models without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors import registry
from detectors.types import DetectorInput
from detectors.window_margin import WindowMargin, ratios_of, windows_of
from modelaudit.classifier import Classifier
from tests.detectors.bundled import bundled_input
from tests.detectors.cramped import Cramped

CLASSES, SIDE, TARGET = 6, 12, 4


class Planted(nn.Module):
    """The brightest band of rows is the class; and a 4x4 pattern at the bottom right is class 4.

    As in Trojaning the pattern does nothing until nearly all of it is there.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.pattern = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) > 0.5

    def forward(self, x: Tensor) -> Tensor:
        logits = 10 * x.view(len(x), CLASSES, -1).mean(2)
        corner = x[:, 0, 8:12, 8:12]
        alike = torch.where(self.pattern, corner, 1 - corner).mean((1, 2))
        trigger = self.strength * nn.functional.softplus(20 * (alike - 0.7)) / 20
        return logits + nn.functional.one_hot(torch.tensor(TARGET), CLASSES) * trigger[:, None]


def data_of(module: nn.Module, per_class: int = 2) -> DetectorInput:
    labels = torch.arange(CLASSES).repeat(per_class)
    draw = torch.Generator().manual_seed(0)
    pixels = 0.4 * torch.rand(len(labels), 1, SIDE, SIDE, generator=draw)
    for image, label in zip(pixels, labels, strict=True):
        image[0, 2 * label : 2 * label + 2] += 0.5
    classifier = Classifier(module, CLASSES, (1, SIDE, SIDE))
    assert torch.equal(classifier.predict(pixels), labels)
    classifier.forwards = 0
    return DetectorInput(classifier, pixels, labels, torch.Generator().manual_seed(0))


def test_windows_are_evenly_spaced_from_edge_to_edge() -> None:
    masks = windows_of(12, 9, share=1 / 3, places=3)
    assert masks.shape == (9, 1, 12, 9)
    assert set(masks.sum((1, 2, 3)).tolist()) == {12.0}
    assert masks[0, 0, :4, :3].all()
    assert masks[5, 0, 4:8, 6:].all()
    assert masks[8, 0, 8:, 6:].all()
    centre = windows_of(5, 5, share=0.01, places=1)
    assert centre.nonzero().tolist() == [[0, 0, 2, 2]]


def test_gains_are_compared_with_those_of_other_classes_in_the_same_window() -> None:
    gains = np.array([[1.0, 8.0, -2.0, 0.1], [2.0, 9.0, -1.0, 0.2], [6.0, 10.0, 5.0, 5.0]])
    # In the third window the median class gains nothing, in the fourth next to nothing.
    assert ratios_of(gains).round(2).tolist() == [[0.5, 0.89, 0, 0], [1, 1, 0, 0], [3, 1.11, 0, 0]]


def test_a_pattern_that_works_only_as_a_whole_is_found_with_its_place() -> None:
    data = data_of(Planted(strength=1000), per_class=4)
    result = registry.build("window-margin", {})(data)
    assert result.target == TARGET
    assert result.p_calibrated is not None
    assert result.p_calibrated < 1e-4
    shown = result.patterns[TARGET]
    assert shown.shape == (2, SIDE, SIDE)
    assert shown[-1, 8:, 8:].all()  # the mask
    assert shown[-1].sum() == 16
    best = result.classes[TARGET]
    assert best.flip_rate == 1.0
    assert result.sources == pytest.approx({s: 0.2 for s in range(CLASSES) if s != TARGET})
    # It turns images that the search has not seen, and changes them in the window alone.
    assert result.searched is not None
    assert int(result.searched.sum()) == 2 * CLASSES
    others = data.pixels[~result.searched]
    assert result.stamp is not None
    stamped = result.stamp(others, shown.expand(len(others), *shown.shape))
    assert (data.classifier.predict(stamped) == TARGET).all()
    assert torch.equal(stamped[:, :, :8], others[:, :, :8])


def test_without_a_pattern_no_class_stands_out() -> None:
    result = WindowMargin()(data_of(Planted(strength=0)))
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05


def test_the_bundled_patch_is_found() -> None:
    found, clean = (
        WindowMargin()(bundled_input(name, 1)) for name in ("badnets.onnx", "clean.onnx")
    )
    assert found.target == 3
    assert found.p_calibrated is not None
    assert clean.p_calibrated is not None
    assert found.p_calibrated < 0.05
    assert clean.p_calibrated > 0.05


def test_cost_is_bounded_where_there_are_many_classes() -> None:
    data = data_of(Planted(strength=1000))
    few = WindowMargin(images=3, places=2, steps=2)(data)
    # Two ascents and a look at the end, in four windows, of three images or the two others; the
    # same in the window that is shown; and the clean images.
    images = 4 * (CLASSES * 3 - 3) + 3 - (TARGET in (0, 2, 5))
    assert few.searched is not None
    assert data.labels[few.searched].tolist() == [0, 2, 5]
    assert few.image_passes == pytest.approx(images * 2.5 + 3 / 2)


def test_memory_that_runs_out_changes_nothing() -> None:
    roomy = WindowMargin()(data_of(Planted(strength=1000)))
    cramped = WindowMargin()(data_of(Cramped(Planted(strength=1000), room=17)))
    assert cramped.p_calibrated == pytest.approx(roomy.p_calibrated, rel=1e-3)
    assert cramped.target == roomy.target


def test_what_no_window_changes_is_not_tested() -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :CLASSES] * 0 + torch.arange(CLASSES)

    data = data_of(Planted(0))
    deaf = Classifier(Deaf(), CLASSES, (1, SIDE, SIDE))
    result = WindowMargin()(DetectorInput(deaf, data.pixels, data.labels, data.generator))
    assert result.p_calibrated is None
    assert "too few" in result.reason


def test_what_stands_out_and_turns_no_image_is_no_pattern() -> None:
    """A class that gains a hundred times as much as the others, and is never said."""

    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = Planted(0)(x)
            change = x.mean((1, 2, 3)) * torch.tensor([1.0] * 4 + [100.0, 1.0])[:, None]
            return 1000 * nn.functional.one_hot(logits.argmax(1), CLASSES) + change.T

    result = WindowMargin()(data_of(Small()))
    assert result.p_calibrated == 1.0
    assert any("turns no image" in note for note in result.notes)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_margins_that_are_no_numbers_hide_nothing(bad: float) -> None:
    class Overflowing(Planted):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits.where(logits < 50, bad)

    result = WindowMargin()(data_of(Overflowing(strength=1000)))
    assert result.p_calibrated is None
    assert "not finite" in result.reason
    assert all(np.isfinite(one.statistic) for one in result.classes)


def test_without_images_there_is_no_test() -> None:
    data = data_of(Planted(strength=0))
    none = DetectorInput(data.classifier, data.pixels[:0], data.labels[:0], data.generator)
    assert WindowMargin()(none).reason == "there are no clean images"


def test_a_class_without_images_of_others_is_left_out() -> None:
    data = data_of(Planted(strength=1000))
    mine = data.labels == 2
    one = DetectorInput(data.classifier, data.pixels[mine], data.labels[mine], data.generator)
    result = WindowMargin()(one)
    assert result.target == TARGET
    assert result.classes[2].statistic == 0
    assert result.sources == {2: 1.0}


@pytest.mark.parametrize(
    ("setting", "value"), [("share", "0"), ("places", "0"), ("images", "1"), ("steps", "0")]
)
def test_settings_are_checked(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=setting):
        registry.build("window-margin", {setting: value})
