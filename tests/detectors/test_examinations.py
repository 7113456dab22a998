"""Examinations with known answers: closed forms, planted outliers, planted units."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from detectors.embeddings import EMBEDDINGS
from detectors.examinations import EXAMINATIONS, ExaminationInput, Labelled, examined
from detectors.examinations.clustering import ActivationClustering, whitened
from detectors.examinations.fine_pruning import FinePruning
from detectors.examinations.grad_cam import GradCam, heatmaps
from detectors.examinations.latent_view import LatentSpace, LatentView
from detectors.examinations.signature import margin_drop, removal
from detectors.examinations.spectral import SpectralSignatures, outlier_scores
from detectors.examinations.strip import Strip, entropy_threshold, superposition_entropy
from detectors.examinations.training import silhouette, two_means
from detectors.examinations.types import Skipped
from detectors.finding import Finding
from modelaudit.classifier import Classifier
from tests.detectors.models import dormant_unit, left_pixels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finding(theta: Tensor, target: int, sources: tuple[int, ...] = ()) -> Finding:
    """An additive pattern."""
    return Finding("l-red", target, sources, 1.0, "", theta, EMBEDDINGS["additive"].apply)


def nothing(shape: tuple[int, int, int]) -> Labelled:
    return Labelled(torch.empty(0, *shape), torch.empty(0, dtype=torch.long))


def given(classifier: Classifier, clean: Labelled, **others: object) -> ExaminationInput:
    held_out = nothing(classifier.input_shape)
    return ExaminationInput(classifier, clean, held_out, generator(), **others)  # type: ignore[arg-type]


def linear(weight: Tensor, bias: Tensor | None = None) -> Classifier:
    """``logits = weight @ pixels + bias`` for images ``[1, 1, D]``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return Classifier(nn.Sequential(nn.Flatten(), layer), len(weight), (1, 1, weight.shape[1]))


# STRIP


def test_entropy_of_a_constant_model_is_that_of_its_probabilities() -> None:
    p = torch.tensor([0.5, 0.25, 0.25])
    model = linear(torch.zeros(3, 4), p.log())
    images = torch.rand(3, 1, 1, 4, generator=generator())
    entropy = superposition_entropy(model, images, images, 2, generator())
    torch.testing.assert_close(entropy, torch.full((3,), 1.5))  # bits


def test_a_class_of_probability_0_adds_no_entropy() -> None:
    model = linear(torch.zeros(3, 4), torch.tensor([0.0, 0.0, -torch.inf]))
    images = torch.rand(2, 1, 1, 4, generator=generator())
    entropy = superposition_entropy(model, images, images, 2, generator())
    torch.testing.assert_close(entropy, torch.ones(2))


def test_entropy_of_a_linear_model_under_one_overlay() -> None:
    model = linear(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    image, overlay = torch.tensor([0.2, 0.9]), torch.tensor([0.3, 0.4])
    z = 0.5 - 2 * 1.0  # the second pixel is clipped at 1
    p = 1 / (1 + math.exp(-z))
    expected = -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
    entropy = superposition_entropy(
        model, image.view(1, 1, 1, 2), overlay.view(1, 1, 1, 2), 100, generator()
    )
    assert entropy.item() == pytest.approx(expected, abs=1e-6)


def test_threshold_is_the_normal_quantile_unless_that_is_not_positive() -> None:
    clean = torch.tensor([0.9, 1.0, 1.1])
    assert entropy_threshold(clean, 0.01) == pytest.approx(1.0 - 2.3263 * 0.1, abs=1e-3)
    skewed = torch.tensor([0.1] * 20 + [3.0])
    assert entropy_threshold(skewed, 0.01) == pytest.approx(0.1)


def triggered_model() -> Classifier:
    """Four classes by the brightest of four pixels; a lit fifth pixel says class 0."""
    weight = torch.zeros(4, 5)
    weight[:, :4] = 4 * torch.eye(4)
    weight[0, 4] = 60
    return linear(weight)


def four_classes(per_class: int = 8) -> Labelled:
    labels = torch.arange(4).repeat_interleave(per_class)
    pixels = 0.3 * torch.rand(len(labels), 5, generator=generator(1))
    pixels[torch.arange(len(labels)), labels] += 0.5
    pixels[:, 4] = 0
    return Labelled(pixels.view(-1, 1, 1, 5), labels)


TRIGGER = torch.tensor([0.0, 0, 0, 0, 1]).view(1, 1, 5)


def test_strip_sees_a_trigger_that_nothing_covers() -> None:
    clean = four_classes()
    suspects = (clean.pixels[8:] + TRIGGER).clamp(0, 1)
    data = given(triggered_model(), clean, finding=finding(TRIGGER, 0), suspects=suspects)
    result = examined(Strip(), data)
    assert result.status == "done"
    for name in ("stamped", "suspects"):
        assert result.numbers[name]["below"] == result.numbers[name]["images"] == 24
        assert result.numbers[name]["auc"] == 1
    assert len(result.numbers["suspects"]["entropy"]) == 24
    assert result.image_passes <= Strip().cost(data) + 24
    unsuspicious = examined(Strip(), given(triggered_model(), clean, suspects=clean.pixels))
    assert unsuspicious.numbers["suspects"]["below"] <= 1
    assert unsuspicious.numbers["suspects"]["auc"] == pytest.approx(0.5, abs=0.05)


def test_suspects_are_judged_beside_a_pattern_that_flips_nothing() -> None:
    clean = four_classes()
    data = given(triggered_model(), clean, finding=finding(0 * TRIGGER, 0), suspects=clean.pixels)
    assert set(examined(Strip(), data).numbers) == {
        "superpositions",
        "threshold",
        "clean",
        "suspects",
    }
    alone = examined(Strip(), replace(data, suspects=None))
    assert "neither a pattern that flips clean images" in alone.reason


# Fine-pruning, latent view, Grad-CAM: on the pattern that was found


def dormant() -> Classifier:
    return Classifier(dormant_unit(), 2, (1, 1, 2))


RIGHT = torch.tensor([0.0, 1.0]).view(1, 1, 2)


def test_fine_pruning_finds_the_dormant_unit() -> None:
    result = examined(
        FinePruning(), given(dormant(), left_pixels(), finding=finding(RIGHT, 1, (0,)))
    )
    assert result.numbers["units"] == 3
    assert result.numbers["pruned"] == [0, 1, 2]
    assert result.numbers["flip_rate"][:2] == [1, 0]
    assert result.numbers["clean_accuracy"][:2] == [1, 1]
    assert result.numbers["tolerated"] == 1
    assert "works on 0% of the images (before 100%)" in result.summary


def test_latent_distance_of_shifted_gaussians() -> None:
    size = 8
    one = torch.randn(4000, size, generator=generator(1))
    shift = torch.full((size,), 0.6)
    space = LatentSpace.of(one, generator(2))
    moved = torch.randn(4000, size, generator=generator(3)) + shift
    expected = float(shift.norm()) / math.sqrt(size)  # the scale of unit Gaussians is 1
    assert float(space.distance(one, moved)) == pytest.approx(expected, rel=0.1)
    assert float(space.of_halves(one, generator(4))) < 0.1


def test_latent_view_of_a_planted_unit_and_of_none() -> None:
    data = given(dormant(), left_pixels(), finding=finding(RIGHT, 1, (0,)))
    far = examined(LatentView(), data).numbers
    assert far["stamped"] > 1 > far["halves"]
    # A pattern that makes the left pixel bright lands among the clean images of the class.
    left = torch.tensor([0.75, 0.0]).view(1, 1, 2)
    near = examined(LatentView(), replace(data, finding=finding(left, 1, (0,)))).numbers
    assert near["stamped"] < 0.3 * near["sources"]
    few = examined(LatentView(least=31), data)
    assert (few.status, few.summary) == ("skipped", "")
    assert "at least 31" in few.reason


def one_convolution() -> Classifier:
    """Class 1 is the mean of the picture; the other map is its negative."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    convolution, head = model[0], model[3]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        head.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        head.bias.copy_(torch.tensor([0.2, 0.0]))
    return Classifier(model, 2, (1, 4, 4))


def test_heatmap_of_one_convolution_is_the_picture() -> None:
    images = torch.rand(3, 1, 4, 4, generator=generator())
    heat = heatmaps(one_convolution(), images, 1)
    torch.testing.assert_close(heat, images[:, 0] / images.amax((1, 2, 3))[:, None, None])
    assert heatmaps(one_convolution(), images, 0).max() == 0  # no positive evidence anywhere


def test_grad_cam_looks_at_the_pattern() -> None:
    theta = torch.zeros(1, 4, 4)
    theta[0, 1, 2] = 1
    clean = Labelled(torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.long))
    result = examined(GradCam(), given(one_convolution(), clean, finding=finding(theta, 1)))
    assert result.status == "skipped"  # one pixel of sixteen does not outweigh the bias
    theta[0, 1:3, 1:3] = 1
    result = examined(GradCam(), given(one_convolution(), clean, finding=finding(theta, 1)))
    assert result.numbers == {"images": 3, "heat_on_pattern": 1.0, "area_of_pattern": 0.25}
    torch.testing.assert_close(result.pictures["heatmaps"][0], theta[0])
    assert result.pictures["stamped"].shape == (3, 1, 4, 4)


# Training images


def poisoned_training() -> tuple[Labelled, set[str]]:
    """Two classes of 120 images with 12 pixels; in 16 of class 1 the last two are brighter."""
    labels = torch.arange(2).repeat_interleave(120)
    pixels = 0.4 + 0.05 * torch.randn(240, 12, generator=generator(5))
    pixels[labels == 1, 0] += 0.3
    pixels[120:136, 10:] += 0.5
    names = tuple(f"{label}/{index:03d}.png" for index, label in enumerate(labels.tolist()))
    return Labelled(pixels.view(-1, 1, 1, 12), labels, names), set(names[120:136])


def trained() -> Classifier:
    weight = torch.zeros(2, 12)
    weight[1, 0] = 10.0
    return linear(weight, torch.tensor([5.5, 0.0]))


def test_outlier_scores_are_squared_projections_on_the_top_direction() -> None:
    features = torch.tensor([[3.0, 0.1], [-3.0, 0.1], [0.0, -0.2]])
    torch.testing.assert_close(
        outlier_scores(features), torch.tensor([9.0, 9.0, 0.0], dtype=torch.float64)
    )


def test_spectral_signatures_name_the_planted_outliers() -> None:
    train, planted = poisoned_training()
    result = examined(SpectralSignatures(epsilon=0.1), given(trained(), train, train=train))
    classes = result.numbers["classes"]
    assert planted <= set(classes["1"]["removed"])
    assert len(classes["1"]["removed"]) == 18  # 1.5 * 0.1 * 120
    assert classes["1"]["ratio"] > 3 * classes["0"]["ratio"]
    assert "class 1 stick out most" in result.summary
    assert result.image_passes == 120


def test_activation_clustering_finds_the_poisoned_class() -> None:
    train, planted = poisoned_training()
    result = examined(ActivationClustering(), given(trained(), train, train=train))
    classes = result.numbers["classes"]
    assert (classes["0"]["suspicious"], classes["1"]["suspicious"]) == (False, True)
    assert set(classes["1"]["listed"]) == planted
    assert classes["1"]["smaller"] == pytest.approx(16 / 120, abs=1e-4)


def test_whitened_features_are_uncorrelated_with_variance_1() -> None:
    features = torch.randn(50, 6, generator=generator()) @ torch.rand(6, 6, generator=generator(1))
    points = whitened(features, 4)
    torch.testing.assert_close(points.T @ points / 50, torch.eye(4, dtype=torch.float64))
    assert whitened(torch.ones(5, 3) + torch.eye(5, 3), 10).shape == (5, 3)


def test_two_means_and_silhouette_of_two_pairs() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0], [10.0, 0.5]])
    members = two_means(points, generator())
    assert members.tolist() == [True, True, False, False, False]
    square = points[:4]
    halves = torch.tensor([True, True, False, False])
    outside = (10 + math.sqrt(101)) / 2
    assert silhouette(square, halves) == pytest.approx((outside - 1) / outside, abs=1e-6)
    same = two_means(torch.ones(4, 2), generator())
    assert silhouette(torch.ones(4, 2), same) == 0


# The signature of a pattern in an input


def test_margin_drop_is_the_lead_that_the_pattern_gives() -> None:
    clean, pattern = four_classes(), finding(0.5 * TRIGGER, 0)
    without = removal(pattern, clean.pixels)
    assert without is not None
    triggered = clean.pixels + 0.5 * TRIGGER
    drops, classes = margin_drop(triggered_model(), 0, without, triggered)
    assert classes.unique().tolist() == [0]
    torch.testing.assert_close(drops, torch.full((32,), 30.0))  # 60 * 0.5
    drops, _ = margin_drop(triggered_model(), 0, without, clean.pixels)
    torch.testing.assert_close(drops, torch.zeros(32))  # there is nothing to take out


def test_a_pattern_that_its_opposite_does_not_undo_is_covered_if_it_is_small() -> None:
    images = torch.full((4, 1, 4, 4), 0.8)
    theta = torch.zeros(1, 4, 4)
    theta[0, 0, 0] = 1  # the pixel is 1 with it, and 0 after taking 1 away
    without = removal(finding(theta, 0), images)
    assert without is not None
    torch.testing.assert_close(without(torch.ones(1, 1, 4, 4))[0, 0, 0, 0], torch.tensor(0.8))
    assert without(torch.ones(1, 1, 4, 4)).sum() == pytest.approx(15.8)
    assert removal(finding(torch.ones(1, 4, 4), 0), images) is None


# Which images are looked at


def test_many_images_are_stamped_in_parts() -> None:
    sizes = []

    def stamp(images: Tensor, theta: Tensor) -> Tensor:
        sizes.append(len(images))
        return images + theta

    found = replace(finding(torch.full((1, 1, 2), 0.5), 0), stamp=stamp)
    assert torch.equal(found.stamped(torch.zeros(70, 1, 1, 2)), torch.full((70, 1, 1, 2), 0.5))
    assert sum(sizes) == 70
    assert max(sizes) < 70


def test_held_out_images_are_preferred_and_the_number_is_bounded() -> None:
    clean, held_out = left_pixels(), left_pixels().where(torch.arange(50) % 10 == 0)
    data = replace(given(dormant(), clean), held_out=held_out, finding=finding(RIGHT, 1, (0,)))
    assert data.victims(100).pixels.equal(held_out.pixels[held_out.labels == 0])
    assert len(data.victims(1)) == 1
    assert len(replace(data, held_out=nothing((1, 1, 2))).victims(100)) == 20
    assert (len(data.some_clean(7)), data.clean_count(7), data.clean_count(99)) == (7, 7, 55)
    assert data.some_clean(99).labels.equal(torch.cat([clean.labels, held_out.labels]))
    assert sorted(data.some_clean(23, of_class=0).labels.tolist()) == [0] * 22 + [1]
    with pytest.raises(Skipped, match="no clean images of the pattern's source"):
        replace(data, finding=finding(RIGHT, 1, (5,))).victims(9)


# What is missing is said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("strip", "neither a pattern nor --suspect-dir"),
        ("fine-pruning", "needs a pattern"),
        ("latent-view", "needs a pattern"),
        ("grad-cam", "needs a pattern"),
        ("spectral-signatures", "--train-dir"),
        ("activation-clustering", "--train-dir"),
    ],
)
def test_skipped_with_the_reason(name: str, reason: str) -> None:
    result = examined(EXAMINATIONS[name].config(), given(dormant(), left_pixels()))
    assert result.status == "skipped"
    assert reason in result.reason
    assert (result.summary, dict(result.numbers)) == ("", {})
    assert result.cannot_see


def test_all_examinations_are_covered_by_the_reasons() -> None:
    assert set(EXAMINATIONS) == {
        "strip", "fine-pruning", "latent-view", "grad-cam", "spectral-signatures",
        "activation-clustering",
    }  # fmt: skip


def test_a_model_without_features_is_skipped_with_the_reason() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0, -2.0], [1.0, 2.0]]))  # type: ignore[operator, union-attr]
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))  # type: ignore[operator, union-attr]
    classifier = Classifier(model, 2, (1, 1, 2))
    result = examined(
        FinePruning(), given(classifier, left_pixels(), finding=finding(RIGHT, 1, (0,)))
    )
    assert result.status == "skipped"
    assert "no linear function" in result.reason
