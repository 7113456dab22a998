"""The share of pairs in which a score is the larger one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from detectors.auc import auc


def test_ties_count_half() -> None:
    assert auc([2.0, 3.0], [1.0, 2.0]) == 3.5 / 4
    assert auc([1.0], [1.0]) == 0.5
    assert auc(torch.tensor([1.0, 0.0]), torch.tensor([2.0])) == 0


def test_it_is_the_mann_whitney_statistic() -> None:
    random = np.random.default_rng(0)
    scores, others = random.integers(0, 9, 40), random.integers(2, 12, 25)
    expected = stats.mannwhitneyu(scores, others).statistic / (40 * 25)
    assert auc(scores, others) == pytest.approx(expected)
    assert auc(others, scores) == pytest.approx(1 - expected)
