"""The Classifier: preprocessing, output kinds, cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier, recognise_outputs, to_logits
from modelaudit.preprocessing import Preprocessing


class Echo(nn.Module):
    """Returns what it is given, flattened."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def classify(preprocessing: Preprocessing, x: Tensor) -> Tensor:
    return Classifier(Echo(), 3, (3, 1, 1), preprocessing)(x)


def test_preprocessing_known_answers() -> None:
    x = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    mean_std = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.5))
    assert classify(mean_std, x)[0].tolist() == pytest.approx([1.0, 1.0, 0.6])
    assert classify(Preprocessing(input_range="0-255"), x)[0].tolist() == pytest.approx(
        [51, 102, 153]
    )
    assert classify(Preprocessing(channel_order="BGR"), x)[0].tolist() == pytest.approx(
        [0.6, 0.4, 0.2]
    )


def test_nhwc_layout() -> None:
    x = torch.rand(2, 3, 4, 5)
    out = Classifier(Echo(), 3, (3, 4, 5), Preprocessing(layout="NHWC"))(x)
    assert torch.equal(out, x.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_outputs_are_recognised(scale: float) -> None:
    logits = torch.randn(16, 5) * scale
    assert recognise_outputs(logits) == "logits"
    assert recognise_outputs(logits.softmax(1)) == "probabilities"
    assert recognise_outputs(logits.log_softmax(1)) == "log-probabilities"
    assert recognise_outputs(logits.sigmoid()) == "sigmoid"


def test_probabilities_keep_their_order_and_gradient() -> None:
    """log p of a class with probability 1e-20 still pulls at the pixels."""
    x = torch.tensor([46.0, 0.0, 1.0]).view(1, 3, 1, 1).requires_grad_()
    classifier = Classifier(
        nn.Sequential(nn.Flatten(), nn.Softmax(1)), 3, (3, 1, 1), outputs="probabilities"
    )
    log_p = classifier(x).log_softmax(1)
    (gradient,) = torch.autograd.grad(log_p[0, 1], x)
    assert gradient.flatten().tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-3)


def test_sigmoids_become_their_logits_with_the_gradient() -> None:
    """From 1e-26 to a probability that is rounded up to 1."""
    x = torch.tensor([-60.0, 0.5, 8.0, 60.0]).view(1, 4, 1, 1).requires_grad_()
    classifier = Classifier(
        nn.Sequential(nn.Flatten(), nn.Sigmoid()), 4, (4, 1, 1), outputs="sigmoid"
    )
    logits = classifier(x)
    assert logits[0].tolist() == pytest.approx([-60.0, 0.5, 8.0, 24 * math.log(2)], abs=1e-3)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0], abs=1e-3)
    ends = torch.tensor([[0.0, 1.0]]).requires_grad_()
    (gradient,) = torch.autograd.grad(to_logits(ends, "sigmoid").sum(), ends)
    assert gradient.isfinite().all()


def test_cost_counts_forward_and_backward() -> None:
    classifier = Classifier(Echo(), 3, (3, 1, 1))
    x = torch.rand(4, 3, 1, 1)
    classifier(x)
    assert classifier.image_passes == 2
    classifier(x.requires_grad_()).sum().backward()
    assert classifier.image_passes == 6


def test_parameters_are_frozen_and_module_is_in_eval_mode() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3, 3))
    Classifier(module, 3, (3, 1, 1))
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_bfloat16_is_asked_for_and_gives_float32_logits_with_fewer_digits() -> None:
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 3, (3, 2, 2))
    x = torch.rand(5, 3, 2, 2, requires_grad=True)
    exact, low = classifier(x), classifier(x, bfloat16=True)
    assert low.dtype == torch.float32
    assert not torch.equal(exact, low)
    assert torch.allclose(exact, low, atol=2e-2)
    (slope,) = torch.autograd.grad(exact[:, 0].sum(), x)
    (low_slope,) = torch.autograd.grad(low[:, 0].sum(), x)
    assert low_slope.dtype == torch.float32
    assert torch.allclose(slope, low_slope, atol=2e-2)
