"""Gains by small changes: triggers of several kinds in a model of known answers, and none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors import registry
from detectors.embedding_margin import SIZES, EmbeddingMargin
from detectors.gains import in_those_of_the_median, mean_where
from detectors.margin import all_margins, margins
from detectors.types import DetectorInput, DetectorResult
from detectors.wave_margin import PHASES, WaveMargin, all_waves, drawn
from modelaudit.classifier import Classifier
from tests.detectors.bundled import bundled_input
from tests.detectors.cramped import Cramped

CLASSES, SIDE, TARGET = 6, 12, 4
MARGINS = [name for name in registry.REGISTRY if name.endswith("-margin")]


class Banded(nn.Module):
    """The brightest band of rows is the class; and what ``trigger`` sees is class 4."""

    def __init__(self, trigger: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.trigger = trigger

    def forward(self, x: Tensor) -> Tensor:
        logits = 10 * x.mean(1).view(len(x), CLASSES, -1).mean(2)
        if self.trigger is None:
            return logits
        target = nn.functional.one_hot(torch.tensor(TARGET), CLASSES)
        return logits + target * self.trigger(x)[:, None]


def data_of(module: nn.Module, per_class: int = 2) -> DetectorInput:
    labels = torch.arange(CLASSES).repeat(per_class)
    draw = torch.Generator().manual_seed(0)
    pixels = 0.2 + 0.3 * torch.rand(len(labels), 3, SIDE, SIDE, generator=draw)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 0.3
    classifier = Classifier(module, CLASSES, (3, SIDE, SIDE))
    assert torch.equal(classifier.predict(pixels), labels)
    classifier.forwards = 0
    return DetectorInput(classifier, pixels, labels, torch.Generator().manual_seed(0))


def wave() -> Tensor:
    """Three times along x, with mean square 1."""
    return math.sqrt(2) * torch.cos(2 * math.pi * 3 * (torch.arange(SIDE) + 0.5) / SIDE)


def beyond(seen: Tensor, most: float, sharp: float = 100) -> Tensor:
    """What is seen beyond what clean images show; with a slope below that, too."""
    return nn.functional.softplus(sharp * (seen - most)) / sharp


def sees_wave(x: Tensor) -> Tensor:
    return 200 * beyond((x.mean((1, 2)) * wave()).mean(1), 0.03)


def sees_red(x: Tensor) -> Tensor:
    red, green, blue = x.mean((2, 3)).unbind(1)
    return 200 * beyond(red - (green + blue) / 2, 0.03)


def sees_pixels(x: Tensor) -> Tensor:
    return 100 * beyond(x[:, :, 8:10, -2:].mean((1, 2, 3)), 0.6, 20)


def found(name: str, trigger: Callable[[Tensor], Tensor] | None, **settings: str) -> DetectorResult:
    return registry.build(name, settings)(data_of(Banded(trigger)))


def test_margins_of_all_classes_are_those_of_each() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    logits[0, :2] = logits[0].max() + 1  # a tie
    each = [margins(logits, torch.full((7,), t)) for t in range(5)]
    assert torch.allclose(all_margins(logits), torch.stack(each, 1))


def test_means_are_over_what_counts_alone() -> None:
    values = torch.tensor([[1.0, 2.0, torch.nan], [3.0, 4.0, 5.0]]).expand(4, 2, 3)
    where = torch.tensor([[True, False, False], [True, True, False]])
    assert mean_where(values, where, 1).tolist() == [[2.0, 4.0, 0.0]] * 4


def test_gains_are_counted_in_those_of_the_median_class() -> None:
    assert in_those_of_the_median(np.array([1.0, 2.0, 6.0, -1.0, 2.0])).tolist() == [
        0.5,
        1.0,
        3.0,
        0.0,
        1.0,
    ]
    assert in_those_of_the_median(np.array([-1.0, 0.0, 3.0])).tolist() == [0, 0, 0]
    assert np.isnan(in_those_of_the_median(np.array([1.0, np.nan, 3.0]))).all()


@pytest.mark.parametrize(
    ("name", "trigger"),
    [
        ("wave-margin", sees_wave),
        ("colour-margin", sees_red),
        ("sparse-margin", sees_pixels),
        ("additive-margin", sees_wave),
        ("generator-margin", sees_red),
    ],
)
def test_a_trigger_is_found_by_what_is_for_it(
    name: str, trigger: Callable[[Tensor], Tensor]
) -> None:
    result = found(name, trigger)
    assert result.target == TARGET
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.02
    assert result.classes[TARGET].flip_rate >= 0.9
    assert result.sources == pytest.approx({s: 0.2 for s in range(CLASSES) if s != TARGET})
    # What is shown turns other images of these classes, too.
    data = data_of(Banded(trigger), per_class=4)
    others = data.pixels[2 * CLASSES :]
    shown = result.patterns[TARGET]
    assert result.stamp is not None
    stamped = result.stamp(others, shown.expand(len(others), *shown.shape))
    assert (data.classifier.predict(stamped) == TARGET).float().mean() > 0.8


@pytest.mark.parametrize("name", MARGINS)
def test_without_a_trigger_no_class_stands_out(name: str) -> None:
    result = found(name, None)
    assert result.p_calibrated is None or result.p_calibrated > 0.05


def test_the_wave_that_is_shown_is_the_trigger() -> None:
    shown = found("wave-margin", sees_wave).patterns[TARGET]
    assert shown.shape == (3, SIDE, SIDE)
    alike = (shown / shown.norm() * wave() / wave().expand_as(shown).norm()).sum()
    assert alike > 0.9


@pytest.mark.parametrize("side", [(12, 8), (9, 7), (1, 8), (28, 32)])
def test_waves_are_different_and_of_one_size(side: tuple[int, int]) -> None:
    waves = all_waves(*side)
    pictures = drawn(waves, *side)
    assert torch.allclose(pictures.square().mean((1, 2)), torch.ones(len(waves)), atol=1e-4)
    alike = (pictures.flatten(1) @ pictures.flatten(1).T / math.prod(side)).fill_diagonal_(0)
    assert alike.max() < 0.99
    # 0 to 4 and 6 along 12 pixels, 0 to 4 along 8: two directions but for the finest.
    if side == (12, 8):
        assert len(waves) == PHASES * (4 + 3 + 2 * 4 * 3 + 4 + 3) + 3 * 2


def test_large_images_have_few_more_waves() -> None:
    assert len(all_waves(1, 1)) == 0
    assert len(all_waves(32, 32)) < 900
    assert len(all_waves(224, 224)) < 2000


def test_sizes_double_until_the_median_class_gains_enough() -> None:
    small = found("additive-margin", None).settings["size"]
    first = SIZES["additive"] * math.sqrt(3 * SIDE * SIDE)
    assert small / first in (1, 2, 4, 8, 16)
    assert small > first  # 0.01 does nearly nothing where bands differ by 0.3
    assert found("additive-margin", None, size="0.5").settings["size"] == 0.5
    assert found("wave-margin", None, size="0.01").settings["size"] == 0.01


def test_cost_is_that_of_the_steps() -> None:
    data = data_of(Banded(sees_red))
    EmbeddingMargin(embedding="colour", size=0.2, images=6, steps=3)(data)
    # One image of each class: those of other classes, three times with a gradient and once without,
    # for every class; and the same for what is shown of the target, until it works.
    clean, one = 6 / 2, 5 * (3 + 1 / 2)
    assert data.classifier.image_passes >= clean + 7 * one
    assert (data.classifier.image_passes - clean) % one == pytest.approx(0, abs=1e-6)
    waves = data_of(Banded(sees_wave))
    WaveMargin(size=0.1, images=6)(waves)
    assert waves.classifier.image_passes == (6 + 6 * len(all_waves(SIDE, SIDE))) / 2


@pytest.mark.parametrize("name", ["wave-margin", "colour-margin", "additive-margin"])
def test_memory_that_runs_out_changes_nothing(name: str) -> None:
    detector = registry.build(name, {})
    roomy = detector(data_of(Banded(sees_wave)))
    cramped = detector(data_of(Cramped(Banded(sees_wave), room=17)))
    assert cramped.p_calibrated == pytest.approx(roomy.p_calibrated, rel=1e-3)
    assert cramped.target == roomy.target


@pytest.mark.parametrize(
    ("name", "trigger"), [("wave-margin", sees_wave), ("colour-margin", sees_red)]
)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_margins_that_are_no_numbers_hide_nothing(
    name: str, trigger: Callable[[Tensor], Tensor], bad: float
) -> None:
    class Overflowing(Banded):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits.where(logits < 9.5, bad)

    result = registry.build(name, {})(data_of(Overflowing(trigger)))
    assert result.p_calibrated is None
    assert "not finite" in result.reason
    assert all(np.isfinite(one.statistic) for one in result.classes)


@pytest.mark.parametrize("name", MARGINS)
def test_what_no_change_reaches_is_not_tested(name: str) -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :CLASSES] * 0 + torch.arange(CLASSES)

    data = data_of(Banded())
    deaf = Classifier(Deaf(), CLASSES, (3, SIDE, SIDE))
    result = registry.build(name, {})(DetectorInput(deaf, data.pixels, data.labels, data.generator))
    assert result.p_calibrated is None
    assert result.reason


@pytest.mark.parametrize("name", MARGINS)
def test_without_images_there_is_no_test(name: str) -> None:
    data = data_of(Banded())
    none = DetectorInput(data.classifier, data.pixels[:0], data.labels[:0], data.generator)
    assert registry.build(name, {})(none).reason == "there are no clean images"


@pytest.mark.parametrize("name", ["wave-margin", "colour-margin"])
def test_a_class_without_images_of_others_is_left_out(name: str) -> None:
    data = data_of(Banded(sees_red))
    mine = data.labels == 2
    one = DetectorInput(data.classifier, data.pixels[mine], data.labels[mine], data.generator)
    result = registry.build(name, {})(one)
    assert result.classes[2].statistic == 0
    assert result.target != 2


def test_the_bundled_patch_is_found_and_nothing_in_the_clean_model() -> None:
    assert registry.build("sparse-margin", {})(bundled_input("badnets.onnx", 2)).target == 3
    for name in MARGINS:
        p = registry.build(name, {})(bundled_input("clean.onnx", 2)).p_calibrated
        assert p is not None
        assert p > 0.05


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("colour-margin", "embedding", "smell"),
        ("colour-margin", "size", "-1"),
        ("colour-margin", "images", "1"),
        ("colour-margin", "steps", "0"),
        ("wave-margin", "size", "2"),
        ("wave-margin", "images", "1"),
    ],
)
def test_settings_are_checked(name: str, setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=setting):
        registry.build(name, {setting: value})
