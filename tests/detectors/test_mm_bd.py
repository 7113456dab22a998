"""MM-BD: margins of linear models by linear programming, and the bundled models."""

from __future__ import annotations

from math import isfinite

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from detectors import registry
from detectors.mm_bd import MmBd, largest_margins
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier, OutputKind
from tests.detectors.bundled import bundled_input
from tests.detectors.cramped import Cramped
from tests.detectors.models import SIDE, Linear, orthonormal_rows

SHAPE = (1, SIDE, SIDE)


def data_of(module: nn.Module, classes: int, outputs: OutputKind = "logits") -> DetectorInput:
    """Without a single image."""
    classifier = Classifier(module, classes, SHAPE, outputs=outputs)
    nothing = torch.empty(0, *SHAPE), torch.empty(0, dtype=torch.long)
    return DetectorInput(classifier, *nothing, torch.Generator().manual_seed(0))


def best_margin(rows: Tensor, target: int) -> float:
    """max z with z <= (a_t - a_k)·(x - 0.5) for all k and x in [0, 1]: a linear program."""
    a = rows.double().numpy()
    others = [k for k in range(len(a)) if k != target]
    difference = a[target] - a[others]
    constraint = np.hstack([-difference, np.ones((len(others), 1))])
    found = linprog(
        c=[0.0] * a.shape[1] + [-1.0],
        A_ub=constraint,
        b_ub=-0.5 * difference.sum(1),
        bounds=[(0, 1)] * a.shape[1] + [(None, None)],
    )
    return -float(found.fun)


@pytest.mark.parametrize(("paper", "scale"), [(False, 1.0), (False, 100.0), (True, 5.0)])
def test_margins_of_a_linear_model_are_near_the_optimum(paper: bool, scale: float) -> None:
    """The fast schedule needs no scale; plain gradient steps of 0.01 need large logits."""
    rows = scale * orthonormal_rows(6)
    best = torch.tensor([best_margin(rows, t) for t in range(6)])
    classifier = Classifier(Linear(rows), 6, SHAPE)
    generator = torch.Generator().manual_seed(0)
    found = largest_margins(classifier, 4, 300 if paper else 50, paper, generator)
    assert (found <= best * (1 + 1e-5)).all()
    assert (found >= 0.9 * best).all()


def test_class_with_the_largest_margin_is_the_target() -> None:
    """Longer rows make larger margins: those of class 3 are out of proportion."""
    length = torch.tensor([1.0, 1.1, 0.9, 6.0, 1.2, 1.05, 0.95, 1.15])
    result = MmBd(steps=20, prior=False)(data_of(Linear(length[:, None] * orthonormal_rows(8)), 8))
    assert result.target == 3
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.05
    assert result.patterns == {}
    assert result.stamp is None
    assert result.null["shape"] > 0


def test_equal_rows_are_no_backdoor() -> None:
    result = MmBd(steps=20, prior=False)(data_of(Linear(orthonormal_rows(8)), 8))
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05


def test_cost_is_known_beforehand() -> None:
    result = MmBd(starts=3, steps=7, prior=False)(data_of(Linear(orthonormal_rows(5)), 5))
    assert result.image_passes == 5 * 3 * 7
    assert result.settings == {"schedule": "fast", "starts": 3, "steps": 7, "prior": False}


def test_class_that_nothing_leads_to_is_the_least_suspicious() -> None:
    class Deaf(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) - 100.0 * torch.tensor([0, 0, 1, 0])

    result = MmBd(steps=10, prior=False)(data_of(Deaf(orthonormal_rows(4)), 4))
    assert result.classes[2].statistic == 0
    assert result.classes[2].size is None
    assert "assigns to class 2" in result.notes[0]
    assert "3 classes with a pattern are too few" in result.reason


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.zeros(6, SIDE**2), "0 classes"),
        (torch.full((6, SIDE**2), torch.nan), "not finite"),
    ],
)
def test_no_test_without_margins(rows: Tensor, words: str) -> None:
    result = MmBd(steps=3)(data_of(Linear(rows), len(rows)))
    assert result.p_calibrated is None
    assert result.target is None
    assert words in result.reason
    assert all(isfinite(one.statistic) for one in result.classes)


def test_ties_for_the_largest_margin_are_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Margins that end where the numbers do say nothing of who is the most suspicious."""
    tied = torch.tensor([1.0, 1.2, 0.9, 3.0, 3.0, 1.1]).double()
    monkeypatch.setattr("detectors.mm_bd.largest_margins", lambda *_: tied)
    result = MmBd()(data_of(Linear(orthonormal_rows(6)), 6))
    assert "tie for the largest margin" in result.reason
    assert result.target is None
    assert result.p_calibrated is None


def test_margins_are_the_same_with_the_smaller_batches_that_memory_has_room_for() -> None:
    rows = orthonormal_rows(6)
    model = Cramped(Linear(rows), 7)
    short, plain = data_of(model, 6), data_of(Linear(rows), 6)
    found = largest_margins(short.classifier, 3, 5, False, short.generator)
    expected = largest_margins(plain.classifier, 3, 5, False, plain.generator)
    assert torch.allclose(found, expected)
    assert 3 < model.most <= 7


def test_probabilities_are_said_to_hide_margins() -> None:
    module = nn.Sequential(Linear(orthonormal_rows(6)), nn.Softmax(1))
    result = MmBd(steps=10, prior=False)(data_of(module, 6, "probabilities"))
    logits = MmBd(steps=10, prior=False)(data_of(Linear(orthonormal_rows(6)), 6))
    assert "not logits" in result.notes[0]
    for a, b in zip(result.classes, logits.classes, strict=True):
        assert a.statistic == pytest.approx(b.statistic, rel=1e-3)


def test_bundled_models() -> None:
    clean = MmBd()(bundled_input("clean.onnx", 1))
    attacked = MmBd()(bundled_input("badnets.onnx", 1))
    assert clean.p_calibrated is not None
    assert attacked.p_calibrated is not None
    assert clean.p_calibrated > 0.05
    assert attacked.p_calibrated < clean.p_calibrated


@pytest.mark.parametrize("setting", ["starts", "steps"])
def test_bad_settings_say_what_would_fit(setting: str) -> None:
    with pytest.raises(ValueError, match="negative"):
        registry.build("mm-bd", {setting: "-1"})
