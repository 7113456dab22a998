"""Gaps of logits by hand, and which of them count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.logit_gap import USUAL, logit_gaps, shares
from detectors.lred import LRed
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.models import Linear, linear_input, orthonormal_rows


def test_gaps_of_images_of_other_classes() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, -2.0], [0.0, 5.0, 4.0]])
    # class 0: only the third image is of another class; class 1: the first two; class 2: all
    assert logit_gaps(logits) == pytest.approx([5.0, (2 + 2) / 2, (3 + 4 + 1) / 3])


def test_a_class_of_all_images_has_no_gap() -> None:
    gaps = logit_gaps(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert gaps == pytest.approx([0.0, 1.5])
    assert shares(gaps).tolist() == [1.0, 1.0]


def test_gaps_well_below_the_median_count_in_proportion() -> None:
    gaps = np.array([10.0, 11.0, 9.0, 8.1, 4.0, 10.0, 10.0])
    expected = [1.0, 1.0, 1.0, 1.0, 4.0 / (USUAL * 10.0), 1.0, 1.0]
    assert shares(gaps) == pytest.approx(expected)


@pytest.mark.parametrize("gaps", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0, 2.0]])
def test_gaps_that_say_nothing_change_nothing(gaps: list[float]) -> None:
    assert np.isfinite(shares(np.array(gaps))).all()
    assert shares(np.array(gaps))[0] == 1.0


class Favoured(Linear):
    """A linear model that nearly takes every image for class 3."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 0.8 * torch.eye(logits.shape[1])[3]


def test_a_class_that_everything_is_near_to_is_no_finding() -> None:
    data = linear_input(orthonormal_rows(10), beta=1.0)
    near = Classifier(Favoured(orthonormal_rows(10)), 10, data.classifier.input_shape)
    data = DetectorInput(near, data.pixels, data.labels, data.generator)
    result, paper = LRed()(data), LRed(prior=False)(data)
    assert paper.target == 3
    assert paper.p_calibrated is not None
    assert paper.p_calibrated < 0.01
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05
    assert any("of its statistic counts" in note for note in result.notes)
    assert not any("of its statistic counts" in note for note in paper.notes)
