"""Properties of the embeddings."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from detectors.embeddings import EMBEDDINGS, Embedding, generator
from detectors.embeddings.warp import cosine_basis
from modelaudit.classifier import Classifier

SUSPECT = Classifier(
    torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 5)),
    num_classes=5,
    input_shape=(3, 6, 6),
)


@pytest.fixture(params=list(EMBEDDINGS))
def embedding(request: pytest.FixtureRequest) -> Embedding:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(8, 3, 6, 6, generator=generator)
    return EMBEDDINGS[request.param].fit(images, generator, SUSPECT)


def test_initial_pattern_changes_nothing(embedding: Embedding) -> None:
    x = torch.rand(3, 3, 6, 6)
    theta = embedding.init(3, (3, 6, 6))
    assert torch.allclose(embedding.apply(x, theta), x, atol=1e-5)
    assert torch.equal(embedding.size(theta), torch.zeros(3))


def test_stamped_pixels_stay_valid(embedding: Embedding) -> None:
    x = torch.rand(3, 3, 6, 6)
    theta = torch.randn(embedding.init(3, (3, 6, 6)).shape) * 3
    stamped = embedding.apply(x, theta)
    assert stamped.min() >= 0
    assert stamped.max() <= 1


def test_images_may_lie_on_another_device_than_those_of_the_search(embedding: Embedding) -> None:
    images, theta = torch.rand(4, 3, 6, 6, device="meta"), embedding.init(4, (3, 6, 6)).to("meta")
    assert embedding.apply(images, theta).device.type == "meta"


@pytest.mark.parametrize("room", [0, 2**20])
def test_bound_images_get_the_same_patterns(
    embedding: Embedding, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not there is room for what depends on the images alone.

    In double precision: a product of two rows is rounded otherwise than one of four on some CPUs.
    """
    if not embedding.in_images:
        pytest.skip("it leaves the images as they are: tests/test_shifted.py")
    monkeypatch.setattr(generator, "_MOST_VALUES", room)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 6, 6, generator=draw).double()
    theta = embedding.init(2, (3, 6, 6)).double()
    theta = (theta + 0.1 * torch.rand(theta.shape, generator=draw)).requires_grad_()
    row, image = torch.tensor([0, 1, 1, 0]), torch.tensor([4, 0, 4, 2])
    expected = embedding.apply(images[image], theta[row])
    found = embedding.bind(images)(theta, row, image)
    assert torch.allclose(found, expected, atol=1e-6)
    slopes = [torch.autograd.grad((made**2).sum(), theta)[0] for made in (found, expected)]
    assert torch.allclose(*slopes, rtol=1e-4, atol=1e-4)


def test_step_has_the_asked_length(embedding: Embedding) -> None:
    theta = embedding.init(4, (3, 6, 6))
    gradient = torch.randn(theta.shape)
    delta = torch.tensor([0.1, 0.5, 1.0, 2.0])
    assert torch.allclose(embedding.size(embedding.step(theta, gradient, delta)), delta)


def test_step_is_steepest_in_its_own_geometry(embedding: Embedding) -> None:
    """No step of the same size has a larger first-order gain, room permitting."""
    if embedding.name == "patch":
        pytest.skip("not every tensor is a mask with its colours: tests/detectors/test_patch.py")
    generator = torch.Generator().manual_seed(0)
    theta = embedding.init(1, (3, 6, 6))
    gradient = torch.randn(theta.shape, generator=generator)
    delta = torch.tensor([0.2])
    best = (gradient * embedding.step(theta, gradient, delta)).sum()
    for _ in range(200):
        other = torch.randn(theta.shape, generator=generator)
        other = other * (torch.rand(other.shape, generator=generator) < 0.1)
        size = embedding.size(other)
        if size > 0:
            assert (gradient * other / size * delta).sum() <= best + 1e-5


def test_zero_gradient_moves_nothing(embedding: Embedding) -> None:
    theta = embedding.init(2, (3, 6, 6))
    stepped = embedding.step(theta, torch.zeros_like(theta), torch.tensor([0.5, 0.5]))
    assert torch.equal(stepped, theta)


def test_sparse_does_not_spend_on_saturated_pixels() -> None:
    theta = torch.zeros(1, 1, 2, 2)
    theta[0, 0, 0, 0] = 1.0
    gradient = torch.tensor([[[[9.0, 1.0], [0.5, 0.1]]]])
    stepped = EMBEDDINGS["sparse"].step(theta, gradient, torch.tensor([0.25]))
    assert stepped.flatten().tolist() == [1.0, 0.25, 0.0, 0.0]


def test_a_constant_flow_of_the_warp_shifts_the_image() -> None:
    warp = EMBEDDINGS["warp"]
    x = torch.rand(1, 3, 9, 7)
    theta = warp.init(1, (3, 9, 7))
    theta[0, 0, 0, 0], theta[0, 1, 0, 0] = 1.0, 2.0  # one pixel along x, two along y
    assert torch.allclose(warp.apply(x, theta)[:, :, :-2, :-1], x[:, :, 2:, 1:], atol=1e-5)
    assert warp.size(theta).item() == pytest.approx(5**0.5)


def test_the_size_of_a_warp_is_its_root_mean_square_displacement() -> None:
    """A ramp image shows by how much every pixel was moved."""
    warp = EMBEDDINGS["warp"]
    height, width = 16, 12
    theta = 0.1 * torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    ramps = torch.stack(
        [
            torch.arange(width).expand(height, width) / width,
            torch.arange(height)[:, None].expand(height, width) / height,
        ]
    )
    moved = warp.apply(ramps[:, None].float(), theta.expand(2, -1, -1, -1))[:, 0]
    flow = (moved - ramps) * torch.tensor([width, height]).view(2, 1, 1)
    inside = flow[:, 2:-2, 2:-2]  # at the border the ramps end
    rows, columns = cosine_basis(height, 4), cosine_basis(width, 4)
    expected = rows @ theta[0] @ columns.T
    assert torch.allclose(inside, expected[:, 2:-2, 2:-2], atol=1e-4)
    assert expected.square().sum(0).mean().sqrt().item() == pytest.approx(
        warp.size(theta).item(), rel=1e-5
    )


def test_the_size_of_a_generator_is_its_root_mean_square_change() -> None:
    """On the images that it was fitted to, as long as nothing is clipped."""
    draw = torch.Generator().manual_seed(0)
    images = 0.5 + 0.1 * torch.rand(20, 3, 10, 12, generator=draw)
    generator = EMBEDDINGS["generator"].fit(images, draw, SUSPECT)
    theta = torch.randn(generator.init(1, (3, 10, 12)).shape, generator=draw)
    theta *= 0.02 / generator.size(theta)
    change = generator.apply(images, theta.expand(20, -1, -1)) - images
    assert change.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)


def test_a_generator_makes_another_change_of_every_image() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, 8, 16, generator=draw)
    generator = EMBEDDINGS["generator"].fit(images, draw, SUSPECT)
    theta = 0.05 * torch.randn(generator.init(1, (1, 8, 16)).shape, generator=draw)
    change = generator.apply(images, theta.expand(6, -1, -1)) - images
    assert (change[0] - change[1]).abs().max() > 0.01
    moved = generator.apply(images[:1].roll(2, dims=3), theta)[..., 5:-3]
    assert torch.allclose(moved, generator.apply(images[:1], theta)[..., 3:-5], atol=1e-5)


def test_the_change_of_a_generator_is_a_convolution_with_its_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 7, 9, generator=draw, dtype=torch.float64)
    kernels = torch.randn(2, 3, 4, 3, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    by_taps = kernels.flatten(3).permute(0, 3, 1, 2)
    found = generator._second_layer(hidden, by_taps)
    pairs = zip(hidden, kernels, strict=True)
    expected = torch.cat([functional.conv2d(one[None], kernel) for one, kernel in pairs])
    assert torch.allclose(found, expected)
    slopes = [torch.autograd.grad((made**2).sum(), kernels)[0] for made in (found, expected)]
    assert torch.allclose(*slopes)


def test_a_generator_that_saw_no_images_says_so() -> None:
    with pytest.raises(ValueError, match="must be fitted"):
        EMBEDDINGS["generator"].init(1, (3, 8, 8))


def colour_images(channels: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return 0.3 + 0.4 * torch.rand(20, channels, 10, 12, generator=draw)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_size_of_a_change_of_colours_is_its_root_mean_square(channels: int) -> None:
    """On the images that it was fitted to, as long as nothing is clipped."""
    images, draw = colour_images(channels), torch.Generator().manual_seed(1)
    colour = EMBEDDINGS["colour"].fit(images, draw, SUSPECT)
    theta = torch.randn(colour.init(1, (channels, 10, 12)).shape, generator=draw)
    theta *= 0.02 / colour.size(theta)
    change = colour.apply(images, theta.expand(20, -1, -1)) - images
    assert change.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)


def test_a_change_of_colours_depends_on_the_colour_alone() -> None:
    images, draw = colour_images(3), torch.Generator().manual_seed(1)
    colour = EMBEDDINGS["colour"].fit(images, draw, SUSPECT)
    theta = 0.05 * torch.randn(colour.init(1, (3, 10, 12)).shape, generator=draw)
    changed = colour.apply(images, theta.expand(20, -1, -1))
    moved = colour.apply(images.flip(3).roll(1, 0), theta.expand(20, -1, -1))
    assert torch.allclose(moved, changed.flip(3).roll(1, 0), atol=1e-6)


def test_grey_and_tinted_images_are_changes_of_colours() -> None:
    """Every mixture of the colours is one: what it takes is found by least squares."""
    images = 0.1 + 2 * (colour_images(3) - 0.3)  # from 0.1 to 0.9
    colour = EMBEDDINGS["colour"].fit(images, torch.Generator(), SUSPECT)
    one = torch.eye(colour.init(1, (3, 10, 12)).shape[2]) * 0.01
    first = torch.stack([one, *[torch.zeros_like(one)] * 2], 1)  # on red alone
    changes = torch.stack([colour.apply(images, t.expand(20, -1, -1)) - images for t in first])
    features = changes[:, :, 0].flatten(1).T
    for wanted in (images.mean(1), 0.1 + 0.7 * images[:, 0], images[:, 0] * images[:, 2]):
        target = (wanted - images[:, 0]).flatten()
        left = target - features @ torch.linalg.lstsq(features, target[:, None]).solution[:, 0]
        assert left.square().mean().sqrt() < 1e-3


def test_colours_that_saw_no_images_say_so() -> None:
    with pytest.raises(ValueError, match="must be fitted"):
        EMBEDDINGS["colour"].init(1, (3, 8, 8))
