"""Penultimate activations and maps of places, whatever a model is made of."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier, OutputKind
from modelaudit.features import penultimate
from modelaudit.loaders import LoadOptions, load_model
from modelaudit.spatial_map import last_spatial_map
from modelaudit.watch import FeaturesUnavailable
from tests.conftest import BUNDLED


def pixels(count: int = 5, shape: tuple[int, ...] = (1, 28, 28)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(7), nn.ReLU(),
        nn.Linear(7, 3),
    )  # fmt: skip


def bundled(file: str, arch: str | None = None) -> Classifier:
    module = load_model(BUNDLED / file, LoadOptions(arch, 10)).module
    return Classifier(module, 10, (1, 28, 28))


@pytest.mark.parametrize(
    ("file", "arch", "width", "maps"),
    [
        ("badnets.onnx", None, 84, (16, 5, 5)),
        ("global.pt", None, 84, (16, 5, 5)),
        ("chessboard.safetensors", "fixtures.networks:resnet_w8", 32, (32, 7, 7)),
    ],
)
def test_bundled_models_show_features_and_maps(
    file: str, arch: str | None, width: int, maps: tuple[int, ...]
) -> None:
    classifier = bundled(file, arch)
    seen = penultimate(classifier, pixels(), batch=2)
    assert seen.activations.shape == (5, width)
    assert seen.head.weight.shape == (width, 10)
    found = seen.head(seen.activations)  # up to a constant per image
    torch.testing.assert_close(found.softmax(1), seen.logits.softmax(1), rtol=1e-3, atol=1e-5)
    logits, found = last_spatial_map(classifier, pixels())
    assert found.shape == (5, *maps)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), found)
    assert gradient.abs().sum() > 0


def test_activations_are_the_input_of_the_last_layer() -> None:
    model = network().eval()
    expected = model[:-1](pixels())
    seen = penultimate(Classifier(model, 3, (1, 28, 28)), pixels())
    torch.testing.assert_close(seen.activations, expected)


def test_exported_program(tmp_path: Path) -> None:
    model = network().eval()
    expected = model[:-1](pixels())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.export.export(model, (pixels(2),), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / "model.pt2")
    classifier = Classifier(
        load_model(tmp_path / "model.pt2", LoadOptions()).module, 3, (1, 28, 28)
    )
    torch.testing.assert_close(penultimate(classifier, pixels()).activations, expected)
    assert last_spatial_map(classifier, pixels())[1].shape[1] == 4


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_a_convolution_may_be_the_last_layer(outputs: OutputKind) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    if outputs == "probabilities":
        model.append(nn.Softmax(1))
    seen = penultimate(Classifier(model, 3, (1, 28, 28), outputs=outputs), pixels())
    torch.testing.assert_close(seen.activations, model[:2](pixels()).mean((2, 3)))


def test_a_model_that_ends_in_no_linear_layer_is_said_to() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.ReLU())
    classifier = Classifier(model, 3, (1, 28, 28))
    with pytest.raises(FeaturesUnavailable, match="no linear function"):
        penultimate(classifier, pixels())
    with pytest.raises(FeaturesUnavailable, match="no convolution"):
        last_spatial_map(classifier, pixels())
    with pytest.raises(FeaturesUnavailable, match="two images"):
        penultimate(classifier, pixels(1))
