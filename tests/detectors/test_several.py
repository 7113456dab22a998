"""Several targets that stand out together: each hides the others from a test of one alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from detectors.calibration import LEVELS, null_table, simulate
from detectors.gamma import SpreadPrior, fit_gamma, log_plugin_p
from detectors.lred import LRed
from detectors.mm_bd import MmBd
from detectors.order_statistic import (
    FEWEST_FOR_SEVERAL,
    MOST_TARGETS,
    OrderStatisticTest,
    order_statistic_test,
    shares_of_error,
)
from detectors.race import Race
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.models import SIDE, linear_input, orthonormal_rows

PRIOR = SpreadPrior(shape=20.0, weight=10.0)


def clean_statistics(number: int, classes: int, seed: int) -> np.ndarray:
    """Models whose Gamma shapes vary as the prior says."""
    rng = np.random.default_rng(seed)
    shapes = PRIOR.shape * np.exp(np.sqrt(2 / PRIOR.weight) * rng.standard_normal((number, 1)))
    return rng.gamma(shapes, size=(number, classes))


def both(r: np.ndarray, **more: object) -> tuple[OrderStatisticTest, OrderStatisticTest]:
    """The test of one target, and that of several."""
    alone = order_statistic_test(r, prior=PRIOR, **more)  # type: ignore[arg-type]
    return alone, order_statistic_test(r, prior=PRIOR, several=True, **more)  # type: ignore[arg-type]


def test_at_least_so_many_draws_exceed_a_value_with_the_binomial_probability() -> None:
    shape, scale, q = np.array([5.0]), np.array([2.0]), stats.gamma.sf(14.0, 5.0, scale=2.0)
    for rank in (1, 2, 5):
        (log_p,) = log_plugin_p(np.array([14.0]), shape, scale, 10, rank)
        assert np.exp(log_p) == pytest.approx(stats.binom.sf(rank - 1, 10, q))
    values = np.linspace(80.0, 100.0, 41)  # over the place where the way of computing changes
    log_p = np.array([log_plugin_p(values[i : i + 1], shape, scale, 10, 3)[0] for i in range(41)])
    assert (np.diff(log_p) < 0).all()
    assert np.diff(log_p, 2) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_each_of_the_tests_is_uniform_over_clean_models(rank: int) -> None:
    ordered = np.sort(clean_statistics(5000, 10, 11))
    rest, number = ordered[:, :-rank], np.full(5000, 10 - rank)
    fit = fit_gamma(rest.mean(-1), np.log(rest).mean(-1), number, PRIOR)
    log_p = log_plugin_p(ordered[:, -rank], *fit, 10, rank)
    table = null_table(10, prior=PRIOR, rank=rank)
    p = [table.calibrate(float(one)) for one in log_p]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("classes", [6, 10])
def test_clean_models_are_not_refused_more_often(classes: int) -> None:
    p = [both(r)[1].p_calibrated or 0 for r in clean_statistics(800, classes, classes)]
    # binomial standard error of 5 % over 800 draws: 0.8 points; the shares add up to no more
    assert 0.025 < np.mean(np.array(p) < 0.05) < 0.066


def test_with_a_race_clean_models_are_not_refused_more_often() -> None:
    race = Race.of(43, 1.5)
    p = [both(r, race=race)[1].p_calibrated or 0 for r in clean_statistics(300, 43, 1)]
    assert np.mean(np.array(p) < 0.05) < 0.09


@pytest.mark.parametrize("targets", [2, 3, 5])
def test_targets_that_hide_one_another_are_found_and_named(targets: int) -> None:
    r = clean_statistics(1, 10, 7)[0]
    planted = list(range(targets))
    r[planted] = r.max() * np.linspace(3, 2.5, targets)
    alone, several = both(r)
    assert alone.p_calibrated is not None
    assert several.p_calibrated is not None
    assert several.p_calibrated < min(1e-3, alone.p_calibrated / 10)
    assert [several.index, *several.others] == planted
    assert several.log_p_plugin == alone.log_p_plugin  # the paper's is of one


def test_one_target_is_named_alone_and_costs_its_share() -> None:
    r = clean_statistics(1, 10, 7)[0]
    r[4] = 3 * r.max()
    alone, several = both(r)
    assert (several.index, several.others) == (4, ())
    assert alone.p_calibrated is not None
    assert several.p_calibrated == pytest.approx(alone.p_calibrated / 0.9)
    level = several.p_calibrated
    assert level is not None
    assert several.critical(level) == pytest.approx(r[4], rel=1e-6)


def test_with_a_race_several_are_found() -> None:
    r = clean_statistics(1, 43, 3)[0]
    r[:3] = r.max() * 3
    alone, several = both(r, race=Race.of(43, 1.5))
    assert {several.index, *several.others} == {0, 1, 2}
    assert several.p_calibrated is not None
    assert alone.p_calibrated is not None
    assert several.p_calibrated < min(1e-3, alone.p_calibrated)


def test_what_is_far_smaller_than_the_largest_hides_nothing_and_is_not_named() -> None:
    r = clean_statistics(1, 10, 7)[0]
    r[:3] = np.array([20.0, 3.0, 2.5]) * r.max()
    alone, several = both(r)
    assert several.others == ()
    assert alone.p_calibrated is not None
    assert several.p_calibrated == pytest.approx(alone.p_calibrated / 0.9)


def test_at_most_half_of_those_that_are_known_stand_out_together() -> None:
    r = clean_statistics(1, 10, 7)[0]
    r[:3] = 3 * r.max()
    r[4:] = 0  # four are known
    assert len(both(r)[1].others) <= 1


def test_shares_add_up_and_few_classes_have_one_target() -> None:
    for count in range(2, 60):
        shares = shares_of_error(count)
        assert sum(shares) == pytest.approx(1)
        assert len(shares) <= max(1, count // 2)
        assert len(shares) <= MOST_TARGETS
    assert shares_of_error(FEWEST_FOR_SEVERAL - 1) == (1.0,)
    r = np.array([9.0, 9.0, 1.0, 1.1, 0.9])
    assert both(r)[0].p_calibrated == both(r)[1].p_calibrated
    without = order_statistic_test(np.array([9.0, 8.5, *r, 1.2]), several=True)
    assert without.p_calibrated == order_statistic_test(np.array([9.0, 8.5, *r, 1.2])).p_calibrated


def test_the_shipped_table_agrees_with_a_fresh_simulation() -> None:
    fresh = simulate(10, 1, 0, 100_000, PRIOR, rank=3, seed=7)
    where = np.searchsorted(LEVELS, [0.01, 0.05, 0.5])
    shipped = null_table(10, prior=PRIOR, rank=3).quantiles[where]
    assert fresh.quantiles[where] == pytest.approx(shipped, rel=0.05)


class Backdoors(nn.Module):
    """A linear classifier; every trigger direction raises the class that it belongs to."""

    def __init__(self, rows: Tensor, triggers: Tensor, targets: list[int]) -> None:
        super().__init__()
        self.rows, self.triggers, self.targets = rows, triggers, targets

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).flatten(1)
        key = (20 * (x @ self.triggers.T - 0.25)).exp().log1p() / 20
        bonus = x.new_zeros(len(x), len(self.rows))
        return x @ self.rows.T + bonus.index_add(1, torch.tensor(self.targets), 40 * key)


def two_backdoors(classes: int = 8, targets: tuple[int, ...] = (2, 5)) -> DetectorInput:
    rows = orthonormal_rows(classes + len(targets))
    data = linear_input(rows[:classes], 0.9, per_class=4)
    generator = torch.Generator().manual_seed(5)
    pixels = (data.pixels + 0.03 * torch.randn(data.pixels.shape, generator=generator)).clamp(0, 1)
    model = Backdoors(rows[:classes], rows[classes:], list(targets))
    return DetectorInput(
        Classifier(model, classes, (1, SIDE, SIDE)), pixels, data.labels, data.generator
    )


def test_l_red_finds_both_backdoors_and_has_a_pattern_for_each() -> None:
    result = LRed()(two_backdoors())
    assert set(result.targets) == {2, 5}
    assert result.p_calibrated is not None
    assert result.p_calibrated < 0.005
    for one in result.each:
        assert one.targets == (one.target,)
        assert one.target in one.patterns
        assert one.target not in one.sources
        assert sum(one.sources.values()) == pytest.approx(1, abs=1e-5)
    assert replace(result, others=()).each == (replace(result, others=()),)


def test_mm_bd_names_both() -> None:
    result = MmBd()(two_backdoors())
    assert set(result.targets) == {2, 5}
