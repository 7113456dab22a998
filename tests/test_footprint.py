"""How much a model makes of an image, whatever it is made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from modelaudit.classifier import Classifier
from modelaudit.errors import ModelFileError
from modelaudit.preprocessing import Preprocessing

SHAPE = (3, 8, 8)
IMAGE = 3 * 8 * 8


def values(module: object, preprocessing: Preprocessing | None = None) -> float:
    return Classifier(module, 5, SHAPE, preprocessing).values_per_tensor  # type: ignore[arg-type]


def test_all_that_modules_and_scripts_make_counts() -> None:
    def network(channels: int) -> nn.Module:
        convolution, linear = nn.Conv2d(3, channels, 3, padding=1), nn.Linear(64 * channels, 5)
        return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear).eval()

    module = network(7)
    assert 200 < values(module) < 7 * 64
    assert values(network(70)) > 5 * values(module)
    script = torch.jit.trace(module, torch.zeros(2, *SHAPE))
    assert values(script) == pytest.approx(values(module), rel=0.3)
    assert values(module, Preprocessing("half", (0.5,), (0.5,))) != values(module)


def test_views_and_what_all_images_share_do_not_count() -> None:
    weight = torch.rand(1000, IMAGE)

    def module(x: Tensor) -> Tensor:
        wide = x.flatten(1)[:, None].expand(-1, 1000, -1)  # no values of its own
        return functional.linear(wide[:, 0], weight.double().float())[:, :5]

    assert values(module) == pytest.approx((3 * IMAGE + 1000) / 4, rel=0.25)


def test_a_model_that_goes_its_own_way_counts_as_its_images() -> None:
    def one_by_one(x: Tensor) -> Tensor:
        return torch.stack([one.flatten().sin()[:5] for one in x])

    def failing(x: Tensor) -> Tensor:
        raise RuntimeError("two images are too many")

    for module in (one_by_one, failing):
        assert values(module) == IMAGE
    with pytest.raises(ModelFileError):
        Classifier(failing, 5, SHAPE)(torch.zeros(2, *SHAPE))


def test_it_is_measured_once_and_is_no_image_pass() -> None:
    calls = []

    def module(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.flatten(1)[:, :5]

    classifier = Classifier(module, 5, SHAPE)
    assert classifier.values_per_tensor == classifier.values_per_tensor
    assert calls == [2, 3]
    assert classifier.image_passes == 0
