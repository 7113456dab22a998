"""L-RED in the space of a model's neurons, on a network whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detectors.registry import build
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier

CLASSES, TARGET, LEAD = 8, 3, 5.0


class Hidden(nn.Module):
    """One neuron for each class, and one more that only the trigger excites.

    Images show their class in one pixel. The logit of a class is its neuron; the target's has
    ``strength`` times the neuron of the trigger beside it.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner = nn.Linear(CLASSES, CLASSES + 1, bias=False)
        self.last = nn.Linear(CLASSES + 1, CLASSES, bias=False)
        with torch.no_grad():
            self.inner.weight.copy_(torch.eye(CLASSES + 1)[:, :CLASSES] * LEAD)
            self.last.weight.copy_(torch.eye(CLASSES + 1)[:CLASSES])
            self.last.weight[TARGET, CLASSES] = strength

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x.flatten(1)))  # type: ignore[no-any-return]


def suspect(module: nn.Module) -> DetectorInput:
    labels = torch.arange(CLASSES).repeat_interleave(4)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.eye(CLASSES)[labels] * 0.9 + 0.1 * torch.rand(
        len(labels), CLASSES, generator=draw
    )
    shape = (1, 1, CLASSES)
    classifier = Classifier(module, CLASSES, shape)
    return DetectorInput(classifier, pixels.view(-1, *shape), labels, draw)


def test_the_class_that_one_neuron_decides_has_the_smallest_shift() -> None:
    data = suspect(Hidden(strength=10.0))
    result = build("l-red-neurons", {})(data)
    assert result.target == TARGET
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.001
    sizes = [one.size for one in result.classes]
    spread = data.classifier.module.inner(data.pixels.flatten(1)).var(0).mean().sqrt()  # type: ignore[operator,union-attr]
    # The trigger's neuron alone must make up for the lead; at first order that is the whole shift.
    assert sizes[TARGET] == pytest.approx(0.9 * LEAD / 10 / float(spread), rel=0.15)
    assert min(size for one, size in enumerate(sizes) if one != TARGET) > 4 * sizes[TARGET]  # type: ignore[operator,type-var]


def test_without_such_a_neuron_no_class_stands_out() -> None:
    result = build("l-red-neurons", {})(suspect(Hidden(strength=0.0)))
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05


def test_it_has_no_pattern_to_show_and_counts_its_image_passes() -> None:
    data = suspect(Hidden(strength=10.0))
    result = build("l-red-neurons", {})(data)
    assert result.stamp is None
    assert not result.patterns
    assert result.image_passes == data.classifier.image_passes > 0


def test_a_model_without_inner_layers_is_not_judged() -> None:
    result = build("l-red-neurons", {})(suspect(nn.Sequential(nn.Flatten())))
    assert result.p_calibrated is None
    assert not result.applicable
    assert "no inner layer" in result.reason
    assert result.settings["embedding"] == "neurons"


class Turning(nn.Module):
    """Neurons for the classes and one that only the trigger excites, which turns class s into
    s + 2: it closes a gate between the neurons of the classes and their own logits."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner = nn.Linear(CLASSES, 2 * CLASSES + 1, bias=False)
        self.middle = nn.Linear(2 * CLASSES + 1, 2 * CLASSES)
        self.last = nn.Linear(2 * CLASSES, CLASSES, bias=False)
        eye = torch.eye(CLASSES)
        with torch.no_grad():
            self.inner.weight.copy_(torch.cat([eye, eye, torch.zeros(1, CLASSES)]) * LEAD)
            self.middle.weight.copy_(torch.eye(2 * CLASSES + 1)[:-1])
            self.middle.weight[:CLASSES, -1] = -strength  # the neurons of the classes close,
            self.middle.weight[CLASSES:, -1] = strength  # and those of the turned ones open
            self.middle.bias.copy_(torch.cat([torch.zeros(CLASSES), -LEAD * torch.ones(CLASSES)]))
            self.last.weight.copy_(torch.cat([eye, eye.roll(2, 1)], 0).T)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.inner(x.flatten(1))).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("strength", [10.0, 0.0])
def test_an_all_to_all_backdoor_is_one_shift_of_all_classes(strength: float) -> None:
    result = build("l-red-all-to-all-neurons", {})(suspect(Turning(strength)))
    assert result.p_calibrated is not None
    if strength:
        assert result.shift == 2
        assert result.targets == tuple(range(CLASSES))
        assert result.p_calibrated < 0.001
    else:
        assert result.p_calibrated > 0.05
    assert not result.patterns
    assert result.settings["largest"] == 6
