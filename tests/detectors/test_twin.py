"""The clean twin: it says what the suspect says of clean images, and has no backdoor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detectors.lred import LRed
from detectors.twin import BATCH, distil
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.bundled import bundled_input
from tests.detectors.models import linear_input, orthonormal_rows


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_says_what_the_suspect_says_of_clean_images() -> None:
    data = linear_input(orthonormal_rows(4), beta=1.0, per_class=8)
    twin = distil(data.classifier, data.pixels, 60, generator())
    assert torch.equal(twin.predict(data.pixels), data.classifier.predict(data.pixels))


def test_its_logits_are_in_units_of_the_suspects() -> None:
    """They are centred, and their scale does not depend on the suspect's."""
    data = linear_input(100 * orthonormal_rows(4), beta=0.01, per_class=8)
    twin = distil(data.classifier, data.pixels, 60, generator())
    with torch.no_grad():
        logits = twin(data.pixels)
    assert abs(float(logits.mean())) < 0.2
    assert 0.5 < float(logits.std()) < 1.5


def test_every_mixture_costs_the_suspect_a_forward_pass() -> None:
    data = linear_input(orthonormal_rows(4), beta=1.0)
    distil(data.classifier, data.pixels, 3, generator())
    assert data.classifier.forwards == len(data.pixels) + 3 * BATCH
    assert data.classifier.backwards == 0


def test_a_seed_gives_one_twin_and_leaves_other_randomness_alone() -> None:
    data = linear_input(orthonormal_rows(4), beta=1.0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, other = (distil(data.classifier, data.pixels, 3, generator()) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(one(data.pixels), other(data.pixels))


def test_it_works_without_gradients_and_on_large_colour_images() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    classifier = Classifier(Mean(), 6, (3, 150, 130))
    pixels = torch.rand(8, 3, 150, 130, generator=generator())
    with torch.no_grad():
        twin = distil(classifier, pixels, 2, generator())
    assert twin.num_classes == 6
    assert twin(pixels).shape == (8, 6)


def test_a_backdoor_is_not_passed_on() -> None:
    """The patch of the bundled model leads to class 3; nothing leads its twin there that easily."""
    data = bundled_input("badnets.onnx", 8)
    twin = distil(data.classifier, data.pixels, 150, generator())
    assert (twin.predict(data.pixels) == data.labels).float().mean() > 0.9
    in_twin = LRed("l-red")(DetectorInput(twin, data.pixels, data.labels, generator()))
    in_suspect = LRed("l-red")(data)
    assert in_suspect.p_calibrated is not None
    assert in_suspect.p_calibrated < 0.01
    assert in_twin.p_calibrated is not None
    assert in_twin.p_calibrated > 0.05


@pytest.mark.parametrize("shape", [(1, 1, 200), (1, 8, 1024), (3, 1, 1)])
def test_narrow_images_will_do(shape: tuple[int, int, int]) -> None:
    classifier = Classifier(lambda x: x.flatten(1)[:, :1].repeat(1, 4), 4, shape)
    twin = distil(classifier, torch.rand(4, *shape), 1, generator())
    assert twin(torch.rand(2, *shape)).shape == (2, 4)


def test_logits_that_are_no_numbers_teach_nothing() -> None:
    classifier = Classifier(lambda x: x.flatten(1)[:, :4] / 0, 4, (1, 2, 2))
    twin = distil(classifier, torch.rand(4, 1, 2, 2), 2, generator())
    assert twin(torch.rand(2, 1, 2, 2)).isfinite().all()
