"""Shifts of a model's inner layers, against the same shifts written into the network."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier
from modelaudit.inner_layers import inner_layers
from modelaudit.loaders.torchscript import TorchScriptModule
from modelaudit.shifted import Layer, Shifted
from modelaudit.watch import FeaturesUnavailable

SHAPE = (1, 4, 4)
LAYERS = (Layer(3, 1, 0.5), Layer(5, 1, 2.0), Layer(4, 1, 0.0))


class Network(nn.Module):
    """Two inner layers, with ReLUs that overwrite what they are given, and the places to shift."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 3, 3)
        self.second = nn.Linear(12, 5)
        self.last = nn.Linear(5, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x)).flatten(1)
        return self.last(self.relu(self.second(x)))

    def shifted(self, x: Tensor, shifts: Tensor) -> Tensor:
        first, second = (0.5 * shifts[:, :3])[:, :, None, None], 2.0 * shifts[:, 3:]
        x = torch.relu(self.first(x) + first).flatten(1)
        return self.last(torch.relu(self.second(x) + second))  # type: ignore[no-any-return]


def scripted(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network.eval()), file)
    file.seek(0)
    return TorchScriptModule(torch.jit.load(file), torch.float32)


def of_plain_modules(network: nn.Module) -> nn.Module:
    return network


@pytest.mark.parametrize("made", [of_plain_modules, scripted])
def test_logits_and_gradients_are_those_of_the_shifted_network(made: object) -> None:
    network = Network()
    shifted = Shifted(Classifier(made(network), 4, SHAPE), LAYERS)  # type: ignore[operator]
    x, shifts = torch.rand(6, *SHAPE), torch.randn(6, 8, requires_grad=True)
    found, expected = shifted(x, shifts), network.shifted(x, shifts)
    assert torch.allclose(found, expected, atol=1e-6)
    goal = torch.randn(6, 4)
    slopes = [torch.autograd.grad((goal * y).sum(), shifts)[0] for y in (found, expected)]
    assert torch.allclose(*slopes, atol=1e-6)
    assert slopes[0].count_nonzero() > 10
    with torch.no_grad():
        assert torch.allclose(shifted(x, shifts), expected, atol=1e-6)


def test_no_shift_changes_nothing_and_costs_one_forward_pass() -> None:
    classifier = Classifier(Network(), 4, SHAPE)
    x, none = torch.rand(6, *SHAPE), torch.zeros(6, 8)
    assert torch.equal(Shifted(classifier, LAYERS)(x, none), classifier(x))
    assert classifier.image_passes == 6
    Shifted(classifier, LAYERS)(x, none.requires_grad_()).sum().backward()
    assert classifier.image_passes == 12


def test_finds_all_layers_but_the_last_with_their_spread() -> None:
    network, x = Network(), torch.rand(9, *SHAPE)
    found = inner_layers(Classifier(network, 4, SHAPE), x)
    assert [(one.channels, one.rows, one.spread > 0) for one in found] == [
        (3, 1, True),
        (5, 1, True),
        (4, 1, False),
    ]
    with torch.no_grad():
        first = network.first(x).transpose(0, 1).flatten(1)
    assert found[0].spread == pytest.approx(float(first.var(1).mean().sqrt()))


class Attention(nn.Module):
    """In torch's attention, products have the places of the images before the images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.last(self.block(tokens).mean(1))  # type: ignore[no-any-return]


def test_layers_whose_rows_are_not_the_images_are_left_out() -> None:
    classifier = Classifier(Attention(), 4, SHAPE)
    x = torch.rand(6, *SHAPE)
    layers = inner_layers(classifier, x)
    shifted = [(one.channels, one.rows) for one in layers if one.spread]
    assert shifted == [(8, 1), (16, 4), (8, 4)]  # the patches and the two of the MLP
    shifts = torch.zeros(6, 32, requires_grad=True)
    slope = torch.autograd.grad(Shifted(classifier, layers)(x, shifts)[2, 1], shifts)[0]
    assert slope[2].count_nonzero() > 20
    assert slope[[0, 1, 3, 4, 5]].abs().max() == 0
    with torch.no_grad():  # torch would take a fused kernel here
        assert torch.allclose(Shifted(classifier, layers)(x, shifts), classifier(x), atol=1e-5)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(16, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        same = self.inner(torch.ones_like(x)).sum()
        return self.last(x) + same  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", [Nothing(), Constant(), nn.Sequential(nn.Flatten())])
def test_a_model_without_inner_layers(module: nn.Module) -> None:
    with pytest.raises(FeaturesUnavailable, match="no inner layer"):
        inner_layers(Classifier(module, 4, SHAPE), torch.rand(3, *SHAPE))


def test_one_image_is_not_enough() -> None:
    with pytest.raises(FeaturesUnavailable, match="two images"):
        inner_layers(Classifier(Network(), 4, SHAPE), torch.rand(1, *SHAPE))


class Alternating(Network):
    """Runs its second layer for large batches only."""

    def forward(self, x: Tensor) -> Tensor:
        large = len(x) > 3
        x = self.relu(self.first(x)).flatten(1)
        return self.last(self.second(x) if large else x[:, :5])  # type: ignore[no-any-return]


def test_layers_that_come_and_go_are_told() -> None:
    shifted = Shifted(Classifier(Alternating(), 4, SHAPE), LAYERS)
    with pytest.raises(FeaturesUnavailable, match="every batch"):
        shifted(torch.rand(2, *SHAPE), torch.zeros(2, 8))


def test_a_single_image_has_the_logits_that_it_has_among_others() -> None:
    """Torch runs other operators for it: the attention's product becomes one of the layers."""
    classifier = Classifier(Attention(), 4, SHAPE)
    x = torch.rand(3, *SHAPE)
    shifted = Shifted(classifier, inner_layers(classifier, x))
    shifts = torch.randn(3, 32, requires_grad=True)
    together, alone = shifted(x, shifts), shifted(x[:1], shifts[:1])
    assert torch.allclose(alone, together[:1], atol=1e-5)
    slopes = [torch.autograd.grad(y[0, 2], shifts)[0][0] for y in (together, alone)]
    assert torch.allclose(*slopes, atol=1e-5)


class Several(Network):
    """Beside its logits it works out others: before them, after them, and for nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.another, self.unused = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x)).flatten(1)
        x = self.relu(self.second(x))
        before = self.another(x)
        logits = self.last(x) + before
        self.unused(x)
        return logits  # type: ignore[no-any-return]


def test_layers_that_make_the_logits_or_nothing_are_not_shifted() -> None:
    classifier = Classifier(Several(), 4, SHAPE)
    x = torch.rand(6, *SHAPE)
    layers = inner_layers(classifier, x)
    assert [one.spread > 0 for one in layers] == [True, True, False, False, False]
    shifts = torch.zeros(6, 8, requires_grad=True)
    slope = torch.autograd.grad(Shifted(classifier, layers)(x, shifts).sum(), shifts)[0]
    assert slope.count_nonzero() > 10


class Rounded(Network):
    """No gradient passes its first layer, and none any if ``wholly``."""

    def __init__(self, wholly: bool) -> None:
        super().__init__()
        self.beside, self.wholly = nn.Conv2d(1, 3, 3), wholly

    def forward(self, x: Tensor) -> Tensor:
        first, beside = self.first(x).detach(), self.beside(x)
        x = self.relu(first + (beside.detach() if self.wholly else beside)).flatten(1)
        return self.last(self.relu(self.second(x)))  # type: ignore[no-any-return]


def test_layers_without_gradients_are_not_shifted() -> None:
    layers = inner_layers(Classifier(Rounded(wholly=False), 4, SHAPE), torch.rand(6, *SHAPE))
    assert [one.spread > 0 for one in layers] == [False, True, True, False]
    with pytest.raises(FeaturesUnavailable, match="no inner layer"):
        inner_layers(Classifier(Rounded(wholly=True), 4, SHAPE), torch.rand(6, *SHAPE))


class InPairs(nn.Module):
    """A file whose batch is always two."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.network(pair) for pair in x.split(2)])


@pytest.mark.parametrize("images", [2, 4, 5])
def test_a_fixed_batch_shows_no_layers(images: int) -> None:
    classifier = Classifier(InPairs(), 4, SHAPE)

    def look() -> None:
        layers = inner_layers(classifier, torch.rand(images, *SHAPE))
        Shifted(classifier, layers)(torch.rand(5, *SHAPE), torch.zeros(5, 8))

    with pytest.raises(FeaturesUnavailable):
        look()
