"""Neural Cleanse and the search for the smallest mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors import registry
from detectors.mask_search import MaskSearch, MaskSearchConfig
from detectors.neural_cleanse import NeuralCleanse, mad_outlier
from detectors.rows import Rows
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.bundled import bundled_input
from tests.detectors.models import SIDE
from tests.detectors.patches import patched_input, separate_pixels

SLOW = MaskSearchConfig(
    success=0.99,
    steps=150,
    learning_rate=0.2,
    first_mask=0.2,
    first_cost=1e-3,
    cost_factor=1.5,
    patience=3,
    stop_after=40,
)


def test_mask_is_near_the_closed_form() -> None:
    """White at the heaviest pixel gives 1.5 of the margin 2.25, the rest costs 0.75 at weight 2."""
    data = separate_pixels()
    rows = Rows.per_target(data.labels, 5)
    search = MaskSearch(data.classifier, data.pixels, data.labels, SLOW)
    found = search.run(rows, rows.uniform_weights(), torch.Generator().manual_seed(0))
    assert (found.size >= 1.75 - 1e-3).all()
    assert (found.size <= 1.75 * 1.25).all()
    assert ((found.weights * found.flips).sum(1) >= 0.99).all()


def test_mask_is_where_the_patch_is_and_has_its_colour() -> None:
    data, place = patched_input(sources=(0, 1, 2, 3, 5, 6, 7), target=4)
    result = NeuralCleanse(prior=False)(data)
    assert result.target == 4
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.01
    assert result.null["anomaly_index"] > 2
    assert "above its threshold" in result.notes[0]
    colour, mask = result.patterns[4]
    assert mask.flatten()[place].sum() > 0.8 * mask.sum()
    assert colour.flatten()[place].sum() > 0.8 * mask.flatten()[place].sum()
    assert result.stamp is not None
    images = data.pixels[data.labels != 4]
    stamped = result.stamp(images, result.patterns[4].expand(len(images), -1, -1, -1))
    assert (data.classifier.predict(stamped) == 4).float().mean() >= 0.99


def test_weights_choose_the_sources() -> None:
    """Only the images of the one source class need to be flipped."""
    data, place = patched_input(sources=(2,), target=4)
    rows = Rows.per_target(data.labels, 8)
    weights = rows.uniform_weights()
    weights[4] = torch.eye(8)[2]
    search = MaskSearch(data.classifier, data.pixels, data.labels, SLOW)
    found = search.run(rows, weights, torch.Generator().manual_seed(0))
    assert found.size.argmin() == 4
    assert found.flips[4, 2] == 1
    mask = found.theta[4, -1].flatten()
    assert mask[place].sum() > 0.8 * mask.sum()


def test_a_row_does_not_depend_on_how_the_images_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = separate_pixels()
    rows = Rows.per_target(data.labels, 5)
    config = MaskSearchConfig(0.99, 20, 0.3, 0.2, 1e-3, 1.5, 2, 10)
    sizes = []
    for batch in (1000, 3):
        monkeypatch.setattr("detectors.stamping.PIXELS_PER_BATCH", 0)
        monkeypatch.setattr("detectors.stamping.VALUES_PER_BATCH", batch * SIDE**2)
        monkeypatch.setattr("detectors.stamping.FEWEST_PER_BATCH", 1)
        search = MaskSearch(data.classifier, data.pixels, data.labels, config)
        found = search.run(rows, rows.uniform_weights(), torch.Generator().manual_seed(0))
        sizes.append(found.size)
    assert torch.allclose(sizes[0], sizes[1], rtol=1e-3)


def test_image_passes_are_counted() -> None:
    data = separate_pixels()
    result = NeuralCleanse(steps=3, prior=False)(data)
    assert result.image_passes == 3 * 5 * 8  # steps x targets x images of other classes


def test_model_without_a_mask_gets_a_reason() -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :1] * 0 + torch.eye(5)[0]

    data = separate_pixels()
    deaf = DetectorInput(
        Classifier(Deaf(), 5, (1, SIDE, SIDE)), data.pixels, data.labels, data.generator
    )
    result = NeuralCleanse(steps=3)(deaf)
    assert result.p_calibrated is None
    assert result.target is None
    assert "too few" in result.reason
    assert "fewer than 3 masks" in result.notes[0]
    assert "no pattern found" in result.notes[1]


def test_anomaly_index_of_known_sizes() -> None:
    found = mad_outlier(np.array([2.0, 10.0, 11.0, 12.0, 13.0]))
    # median 11, absolute deviations 9 1 0 1 2 with median 1
    assert found.median == 11
    assert found.mad == pytest.approx(1.4826)
    assert found.index == pytest.approx(9 / 1.4826)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([1.0, 2.0], "fewer than 3"),
        ([1.0, math.inf, math.inf, math.inf], "fewer than 3"),
        ([1.0, 2.0, 3.0, math.inf, math.inf, math.inf, math.inf], "half of the classes"),
        ([1.0, 5.0, 5.0, 5.0, 5.0], "spread"),
    ],
)
def test_no_anomaly_index_without_a_spread(sizes: list[float], words: str) -> None:
    found = mad_outlier(np.array(sizes))
    assert found.index is None
    assert words in found.reason


def test_bundled_models() -> None:
    """Two images per class and half of the steps: the direction only."""
    clean = NeuralCleanse(steps=40)(bundled_input("clean.onnx", 2))
    attacked = NeuralCleanse(steps=40)(bundled_input("badnets.onnx", 2))
    assert clean.p_calibrated is not None
    assert attacked.p_calibrated is not None
    assert clean.p_calibrated > 0.05
    assert attacked.p_calibrated < clean.p_calibrated


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"success": "0"}, "must lie in"),
        ({"success": "1.1"}, "must lie in"),
        ({"steps": "-1"}, "not negative"),
        ({"learning_rate": "nan"}, "finite"),
        ({"schedule": "slow"}, "one of: fast, paper"),
    ],
)
def test_bad_settings_say_what_would_fit(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        registry.build("neural-cleanse", settings)


def test_paper_schedule_has_the_public_settings() -> None:
    used = NeuralCleanse(schedule="paper")._settings_used()
    assert used["learning_rate"] == 0.1
    assert used["patience"] == 5
    assert used["stop_after"] == 25
    assert used["steps"] == 1000
    assert (used["first_mask"], used["first_cost"], used["cost_factor"]) == (1.0, 1e-3, 1.5)
    assert used["success"] == 0.99
