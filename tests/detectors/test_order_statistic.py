"""Exact statistics of the order-statistic test and its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from detectors import calibration
from detectors.calibration import LEVELS, NullTable, null_table, simulate
from detectors.gamma import SpreadPrior
from detectors.order_statistic import order_statistic_test
from detectors.race import Race


def test_plugin_p_is_the_papers() -> None:
    r = np.array([0.5, 0.6, 0.55, 0.7, 0.45, 0.52, 0.9])
    result = order_statistic_test(r)
    shape, _, scale = stats.gamma.fit(np.delete(r, 6), floc=0)
    assert result.index == 6
    assert result.p_plugin == pytest.approx(1 - stats.gamma.cdf(0.9, shape, scale=scale) ** 7)


def test_test_does_not_depend_on_the_unit() -> None:
    r = np.random.default_rng(1).gamma(5.0, size=12)
    a, b = order_statistic_test(r), order_statistic_test(r * 1e3)
    assert a.p_plugin == pytest.approx(b.p_plugin)
    assert a.p_calibrated == pytest.approx(b.p_calibrated)


@pytest.mark.parametrize("classes", [5, 10, 43])
def test_calibrated_p_is_uniform_under_the_null(classes: int) -> None:
    rng = np.random.default_rng(classes)
    draws = rng.gamma(5.0, size=(2000, classes))
    p = [order_statistic_test(r).p_calibrated for r in draws]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("shape", [2.0, 30.0])
@pytest.mark.parametrize("classes", [5, 10, 43])
def test_calibration_holds_for_other_shapes(classes: int, shape: float) -> None:
    rng = np.random.default_rng(classes)
    draws = rng.gamma(shape, size=(3000, classes))
    p = np.array([order_statistic_test(r).p_calibrated for r in draws])
    # binomial standard error of 5 % over 3000 draws: 0.4 points
    assert abs((p < 0.05).mean() - 0.05) < 0.015


def test_plugin_p_raises_too_many_false_alarms() -> None:
    """Why there is a calibration: about 25 % at K = 10 where 5 % are promised."""
    draws = np.random.default_rng(0).gamma(5.0, size=(2000, 10))
    p = np.array([order_statistic_test(r).p_plugin for r in draws])
    assert 0.2 < (p < 0.05).mean() < 0.3


@pytest.mark.parametrize("classes", [4, 5, 10, 43, 200])
def test_calibration_is_monotone_down_to_nothing(classes: int) -> None:
    table = null_table(classes)
    log_p = np.concatenate([-np.geomspace(1e6, 1e-6, 400), [0.0]])
    p = np.array([table.calibrate(float(x)) for x in log_p])
    assert (np.diff(p) >= 0).all()
    assert p[0] > 0
    assert p[-1] == pytest.approx(1.0)


def test_shipped_table_agrees_with_a_fresh_simulation() -> None:
    fresh = simulate(10, 1, 0, 100_000, seed=7)
    where = np.searchsorted(LEVELS, [0.01, 0.05, 0.5])
    shipped = null_table(10).quantiles[where]
    assert fresh.quantiles[where] == pytest.approx(shipped, rel=0.05)


def test_unknown_count_is_simulated_once_and_cached(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELAUDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "CACHED_DRAWS", 2000)
    null_table.cache_clear()
    first = null_table(71)
    monkeypatch.setattr(calibration, "simulate", lambda *_: pytest.fail("not read from the cache"))
    null_table.cache_clear()
    assert np.array_equal(null_table(71).quantiles, first.quantiles)
    null_table.cache_clear()


def test_a_raced_table_that_is_not_shipped_is_simulated_with_fewer_draws(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELAUDIT_CACHE", str(tmp_path))
    draws = []

    def simulate_none(*numbers: object) -> NullTable:
        draws.append(numbers[3])
        return NullTable(np.zeros(len(LEVELS)))

    monkeypatch.setattr(calibration, "simulate", simulate_none)
    null_table.cache_clear()
    for race in (None, Race.of(71, 1.5)):
        null_table(71, prior=PRIOR, race=race)
    null_table.cache_clear()
    assert draws == [calibration.CACHED_DRAWS // 2, calibration.CACHED_RACED_DRAWS]


def test_the_shipped_file_is_what_the_command_writes() -> None:
    wanted = {calibration.table_key(*key) for key in calibration.shipped()}
    assert set(calibration.shipped_tables()) == wanted


def test_levels_map_to_themselves() -> None:
    table = null_table(10)
    p = [table.calibrate(float(q)) for q in table.quantiles]
    assert p == pytest.approx(LEVELS.tolist(), rel=1e-3)
    assert isinstance(table, NullTable)


@pytest.mark.parametrize(
    ("r", "words"),
    [
        ([1.0, 2.0, 3.0], "too few"),
        ([1.0, 2.0, np.nan, 3.0], "not finite"),
        ([1.0, 2.0, np.inf, 3.0, 2.0], "not finite"),
        ([1.0, 1.0, 1.0, 1.0, 2.0], "no spread"),
        ([5.0, 5.0, 5.0, 5.0, 5.0], "no spread"),
        ([0.0, 0.0, 0.0, 1.0, 2.0], "2 classes with a pattern are too few"),
    ],
)
def test_degenerate_statistics_give_a_reason_not_a_number(r: list[float], words: str) -> None:
    result = order_statistic_test(np.array(r))
    assert words in result.reason
    assert result.p_plugin is None
    assert result.p_calibrated is None


def test_ties_for_the_largest_are_no_outliers() -> None:
    """Sizes of patterns grow by steps, so that two of many classes often have the same."""
    tied = order_statistic_test(np.array([1.0, 2.0, 3.0, 5.0, 5.0]))
    near = order_statistic_test(np.array([1.0, 2.0, 3.0, 5.0, 5.0 - 1e-9]))
    assert tied.index == 3
    assert tied.p_calibrated == pytest.approx(near.p_calibrated)
    assert tied.p_calibrated is not None
    assert tied.p_calibrated > 0.5
    equal = order_statistic_test(np.full(6, 2.0), prior=PRIOR)
    assert "no spread" in equal.reason


@pytest.mark.parametrize(("classes", "missing"), [(10, 1), (10, 4), (20, 6)])
def test_calibrated_p_is_uniform_when_the_smallest_statistics_are_unknown(
    classes: int, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest patterns are the ones that a search does not find: not an iid subset."""
    monkeypatch.setattr(calibration, "CACHED_DRAWS", 50_000)
    null_table.cache_clear()
    p = []
    for r in np.random.default_rng(missing).gamma(5.0, size=(1500, classes)):
        r[np.argsort(r)[:missing]] = 0
        p.append(order_statistic_test(r).p_calibrated)
    null_table.cache_clear()
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("count", "group"), [(12, 3), (90, 9)])
def test_calibrated_p_of_class_pairs_is_uniform(
    count: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "CACHED_DRAWS", 50_000)
    null_table.cache_clear()
    groups = np.arange(count) // group
    draws = np.random.default_rng(0).gamma(5.0, size=(1500, count))
    p = [order_statistic_test(r, groups).p_calibrated for r in draws]
    null_table.cache_clear()
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_targets_without_a_pattern_stay_out_of_the_fit() -> None:
    r = np.array([0.5, 0.6, 0.55, 0.7, 0.0, 0.45, 0.9])
    result = order_statistic_test(r)
    shape, _, scale = stats.gamma.fit(r[[0, 1, 2, 3, 5]], floc=0)
    assert result.index == 6
    assert result.null["shape"] == pytest.approx(shape, rel=1e-4)
    assert result.p_plugin == pytest.approx(1 - stats.gamma.cdf(0.9, shape, scale=scale) ** 7)


def test_group_of_the_maximum_stays_out_of_the_null() -> None:
    rng = np.random.default_rng(2)
    r = rng.gamma(5.0, size=20)
    groups = np.repeat(np.arange(5), 4)
    result = order_statistic_test(r, groups)
    rest = r[groups != groups[r.argmax()]]
    shape, _, scale = stats.gamma.fit(rest, floc=0)
    assert result.null["shape"] == pytest.approx(shape, rel=1e-4)
    assert result.p_plugin == pytest.approx(1 - stats.gamma.cdf(r.max(), shape, scale=scale) ** 20)


PRIOR = SpreadPrior(shape=20.0, weight=8.0)
RACE = Race(leaders=5, factor=1.5)


def clean_statistics(number: int, classes: int, seed: int) -> np.ndarray:
    """Models whose Gamma shapes vary as the prior says, each on a scale of its own."""
    rng = np.random.default_rng(seed)
    shapes = PRIOR.shape * np.exp(np.sqrt(2 / PRIOR.weight) * rng.standard_normal((number, 1)))
    return rng.gamma(shapes, size=(number, classes)) * rng.uniform(0.01, 100, (number, 1))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    """Tables of 20,000 draws in a cache of their own."""
    monkeypatch.setenv("MODELAUDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "CACHED_DRAWS", 20_000)
    null_table.cache_clear()


@pytest.mark.parametrize("classes", [10, 43])
@pytest.mark.usefixtures("few_draws")
def test_with_a_prior_p_is_uniform_over_clean_models(classes: int) -> None:
    draws = clean_statistics(1000, classes, classes)
    p = [order_statistic_test(r, prior=PRIOR).p_calibrated for r in draws]
    null_table.cache_clear()
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("known", [2, 3])
@pytest.mark.usefixtures("few_draws")
def test_few_known_statistics_are_tested_on_their_own(known: int) -> None:
    """Whether the others are the smallest or any others, p is not too small."""
    draws = clean_statistics(1000, 10, known)
    any_ones, largest = draws.copy(), np.sort(draws, axis=1)
    any_ones[:, known:], largest[:, :-known] = 0, 0
    tests = [order_statistic_test(r, prior=PRIOR) for r in any_ones]
    assert stats.kstest([test.p_calibrated for test in tests], "uniform").pvalue > 0.01
    assert {test.count for test in tests} == {known}
    p_largest = [order_statistic_test(r, prior=PRIOR).p_calibrated for r in largest]
    null_table.cache_clear()
    assert np.mean(np.array(p_largest) < 0.05) < 0.05


@pytest.mark.usefixtures("few_draws")
def test_few_known_statistics_of_groups() -> None:
    groups = np.repeat(np.arange(4), 3)
    r = np.zeros(12)
    r[[0, 5]] = 1.0, 2.0
    test = order_statistic_test(r, groups, PRIOR)
    assert (test.count, test.index) == (2, 5)
    assert test.p_calibrated is not None
    assert 0 < test.p_calibrated < 1
    null_table.cache_clear()


def test_one_known_statistic_is_too_few_with_a_prior_too() -> None:
    one = order_statistic_test(np.array([0.0, 0.0, 0.0, 0.0, 2.0]), prior=PRIOR)
    assert "1 class with a pattern is too few; the test needs 2" in one.reason


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("classes", [2, 3])
def test_two_or_three_classes_are_tested_with_a_prior(classes: int) -> None:
    alike = order_statistic_test(np.linspace(1.0, 1.1, classes), prior=PRIOR)
    apart = order_statistic_test(np.array([100.0, 1.0, 1.0])[:classes], prior=PRIOR)
    null_table.cache_clear()
    assert alike.p_plugin is None  # the paper's test has nothing to fit its null to
    assert alike.p_calibrated is not None
    assert apart.p_calibrated is not None
    assert apart.p_calibrated < 0.01 < 0.3 < alike.p_calibrated
    without = order_statistic_test(np.linspace(1.0, 30.0, classes))
    assert f"{classes} classes with a pattern are too few; the test needs 4" in without.reason


def test_shares_lower_a_statistic_but_not_the_papers_p() -> None:
    r = np.array([1.0, 1.1, 0.9, 1.2, 1.05, 4.0])
    whole = order_statistic_test(r, prior=PRIOR)
    less = order_statistic_test(r, prior=PRIOR, shares=np.array([1, 1, 1, 1, 1, 0.5]))
    other = order_statistic_test(r, prior=PRIOR, shares=np.array([1, 1, 1, 1, 1, 0.25]))
    assert whole.p_calibrated is not None
    assert less.p_calibrated is not None
    assert whole.p_calibrated < less.p_calibrated
    assert whole.p_plugin == less.p_plugin == other.p_plugin
    assert (whole.index, less.index, other.index) == (5, 5, 3)


def test_stopped_targets_stay_below_the_bound_of_all_statistics() -> None:
    race = Race(leaders=4, factor=1.5)
    r = np.array([3.0, 2.9, 2.8, 2.7, *[0.0] * 12])
    shares = np.ones(16)
    shares[:2] = 0.5
    test = order_statistic_test(r, prior=PRIOR, race=race, shares=shares)
    # 2.7 / 1.5 = 1.8: what is left of the first two is below it, and no more is known of them
    assert test.index == 2
    assert test.p_calibrated is not None
    assert test.p_calibrated > 0.05


@pytest.mark.parametrize("censored", [4, 9])
@pytest.mark.usefixtures("few_draws")
def test_searches_that_ended_at_the_largest_size_raise_no_false_alarms(censored: int) -> None:
    p = []
    for r in clean_statistics(1000, 10, censored):
        bound = np.sort(r)[censored - 1]
        test = order_statistic_test(np.maximum(r, bound), prior=PRIOR, censored=r <= bound)
        p.append(test.p_calibrated)
    null_table.cache_clear()
    # binomial standard error of 5 % over 1000 draws: 0.7 points
    assert np.mean(np.array(p) < 0.05) < 0.07


@pytest.mark.parametrize("classes", [43, 100])
@pytest.mark.usefixtures("few_draws")
def test_with_a_race_p_is_uniform_over_clean_models(classes: int) -> None:
    """A quarter to a half of the targets are stopped; how many, varies from model to model."""
    race = Race.of(classes, 1.5)
    draws = clean_statistics(1000, classes, classes)
    p = [order_statistic_test(r, prior=PRIOR, race=race).p_calibrated for r in draws]
    null_table.cache_clear()
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("shape", [2.0, 5.0, 30.0])
@pytest.mark.usefixtures("few_draws")
def test_with_a_race_and_no_prior_calibration_holds_for_any_shape(shape: float) -> None:
    race = Race.of(43, 1.5)
    draws = np.random.default_rng(43).gamma(shape, size=(1000, 43))
    p = np.array([order_statistic_test(r, race=race).p_calibrated for r in draws])
    null_table.cache_clear()
    # binomial standard error of 5 % over 1000 draws: 0.7 points
    assert abs((p < 0.05).mean() - 0.05) < 0.025


@pytest.mark.usefixtures("few_draws")
def test_a_race_costs_little_power() -> None:
    """One statistic two and a half times as large as the others are on average."""
    p = []
    for r in clean_statistics(400, 43, 2):
        r[0] = 2.5 * r[1:].mean()
        raced = [order_statistic_test(r, prior=PRIOR, race=race) for race in (None, RACE)]
        p.append([test.p_calibrated for test in raced])
    null_table.cache_clear()
    without, with_race = (np.array(p) < 0.007).mean(0)
    assert without > 0.5
    assert with_race > without - 0.05


@pytest.mark.usefixtures("few_draws")
def test_a_race_makes_a_test_blind_to_what_lies_below_its_bound() -> None:
    """Whether such a pattern was found, whatever its size, or its target was stopped."""
    r = np.sort(clean_statistics(1, 43, 3)[0])
    bound = float(RACE.bound(r)[0])
    below = r < bound
    assert 3 < below.sum() < 38
    tests = [
        order_statistic_test(np.where(below, value, r), prior=PRIOR, race=RACE)
        for value in (r, 0.0, bound / 2)
    ]
    assert tests[0] == tests[1] == tests[2]
    assert tests[0].index == 42
    assert (tests[0].p_plugin, tests[0].log_p_plugin) == (None, None)  # the paper's needs them all
    null_table.cache_clear()


@pytest.mark.usefixtures("few_draws")
def test_a_race_that_never_began_changes_nothing() -> None:
    """Fewer patterns than leaders were found."""
    r = np.where(np.arange(43) < 39, 0.0, clean_statistics(1, 43, 4)[0])
    raced = order_statistic_test(r, prior=PRIOR, race=RACE)
    assert raced == order_statistic_test(r, prior=PRIOR)
    null_table.cache_clear()


@pytest.mark.usefixtures("few_draws")
def test_a_prior_makes_the_test_stronger() -> None:
    """Statistics like in clean models and one three times as large."""
    p = []
    for r in clean_statistics(200, 10, 1):
        r[0] = 3 * r[1:].mean()
        p.append([order_statistic_test(r, prior=prior).p_calibrated for prior in (None, PRIOR)])
    null_table.cache_clear()
    without, with_prior = (np.array(p) < 0.01).mean(0)
    assert with_prior > without + 0.1


def test_the_papers_p_value_knows_no_prior() -> None:
    r = np.random.default_rng(3).gamma(5.0, size=10)
    with_prior = order_statistic_test(r, prior=PRIOR)
    assert with_prior.p_plugin == order_statistic_test(r).p_plugin
    assert with_prior.p_calibrated != order_statistic_test(r).p_calibrated


def test_the_papers_p_value_knows_no_bounds() -> None:
    """Eight equal bounds have no spread, which would make the ninth a miracle."""
    bounds = np.array([True] * 8 + [False])
    result = order_statistic_test(np.array([1.0] * 8 + [1.2]), prior=PRIOR, censored=bounds)
    assert result.p_calibrated is not None
    assert result.p_calibrated > 0.05
    assert (result.p_plugin, result.log_p_plugin) == (None, None)


def test_nothing_found_up_to_the_largest_size_is_no_evidence() -> None:
    r = np.full(9, 0.01)
    result = order_statistic_test(r, prior=PRIOR, censored=np.ones(9, dtype=bool))
    assert result.index is None
    assert result.p_calibrated == 1.0
    assert result.reason == ""
