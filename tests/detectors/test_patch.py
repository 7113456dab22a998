"""The patch embedding: Eq. 13 in Algorithm 1."""

from __future__ import annotations

import pytest
import torch

from detectors.embeddings import EMBEDDINGS
from detectors.embeddings.sparse import MAX_PIXEL_STEP
from detectors.lred import LRed
from detectors.registry import build
from tests.detectors.patches import patched_input, separate_pixels

PATCH = EMBEDDINGS["patch"]


def test_size_is_near_the_closed_form() -> None:
    """White at the heaviest pixel gives 1.5 of the margin 2.25, the rest costs 0.75 at weight 2."""
    result = LRed(embedding="patch")(separate_pixels())
    sizes = torch.tensor([one.size for one in result.classes])
    assert (sizes >= 1.75 - 1e-3).all()
    assert (sizes <= 1.75 * 1.25).all()


def test_patch_and_its_one_source_are_found() -> None:
    data, place = patched_input(sources=(2,), target=4)
    result = build("l-red-patch", {"prior": "false"})(data)  # the others are all but equal here
    assert result.target == 4
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.05
    assert max(result.sources, key=lambda s: result.sources[s]) == 2
    mask = result.patterns[4][-1].flatten()
    assert mask[place].sum() > 0.6 * mask.sum()


def test_any_colour_can_replace_any_other() -> None:
    """A whole mask shows its colours alone, whatever was there before."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 3, 4, 4, generator=generator)
    colour = torch.rand(5, 3, 4, 4, generator=generator)
    mask = torch.zeros(5, 1, 4, 4)
    mask[:, :, :2] = 1
    stamped = PATCH.apply(x, torch.cat((colour * mask, mask), 1))
    assert torch.allclose(stamped[:, :, :2], colour[:, :, :2])
    assert torch.equal(stamped[:, :, 2:], x[:, :, 2:])
    assert torch.equal(PATCH.apply(x, PATCH.init(5, (3, 4, 4))), x)


@pytest.mark.parametrize("length", [0.1, 0.25, 1.0, 3.3])
def test_step_is_the_steepest(length: float) -> None:
    """No other step of that length, within the same limit per pixel, gains more to first order."""
    generator = torch.Generator().manual_seed(1)
    theta = PATCH.init(1, (3, 5, 5))
    gradient = torch.randn(1, 4, 5, 5, generator=generator)
    delta = torch.tensor([length])
    step = PATCH.step(theta, gradient, delta)
    assert torch.allclose(PATCH.size(step), delta)
    best = (step * gradient).sum()
    most = length / max(1, -(-length // MAX_PIXEL_STEP))
    for _ in range(200):
        mask = torch.zeros(25)
        mask[torch.randperm(25, generator=generator)[: round(length / most)]] = most
        mask = mask.view(1, 1, 5, 5)
        colour = torch.rand(1, 3, 5, 5, generator=generator).round() * mask
        assert (torch.cat((colour, mask), 1) * gradient).sum() <= best + 1e-6


def test_pattern_stays_a_pattern() -> None:
    generator = torch.Generator().manual_seed(2)
    theta = PATCH.init(3, (3, 4, 4))
    for _ in range(40):
        gradient = torch.randn(3, 4, 4, 4, generator=generator)
        theta = PATCH.step(theta, gradient, torch.tensor([0.2, 1.0, 5.0]))
        colour, mask = theta[:, :-1], theta[:, -1:]
        assert (mask >= 0).all()
        assert (mask <= 1).all()
        assert (colour >= 0).all()
        assert (colour <= mask + 1e-6).all()
