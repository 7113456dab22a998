"""Targets whose pattern has grown far beyond the smallest ones are stopped."""

from __future__ import annotations

import pytest
import torch

from detectors.lred import LRed
from detectors.race import Race
from detectors.types import DetectorInput, DetectorResult
from tests.detectors.models import linear_input, orthonormal_rows

CLASSES = 16


def many_classes(classes: int = CLASSES) -> DetectorInput:
    """Linear classes of which the later ones need larger patterns: their logits grow slower."""
    slope = torch.linspace(1.5, 0.4, classes)[:, None]
    return linear_input(orthonormal_rows(classes) * slope, 0.9)


def sizes(result: DetectorResult) -> torch.Tensor:
    return torch.tensor([torch.inf if one.size is None else one.size for one in result.classes])


def test_sizes_and_statistics_have_the_same_bound() -> None:
    race, size = Race(3, 1.5), torch.tensor([4.0, torch.inf, 1.0, 2.0, 8.0, 3.0])
    assert race.largest(size) == 4.5
    assert race.bound(1 / size.double().numpy()).tolist() == pytest.approx([1 / 4.5])
    assert race.largest(torch.tensor([1.0, 2.0, torch.inf, torch.inf])) == torch.inf


@pytest.mark.parametrize(
    ("targets", "leaders"), [(12, None), (13, 4), (39, 4), (43, 5), (100, 12), (1000, 125)]
)
def test_one_target_in_eight_leads_and_few_are_not_raced(targets: int, leaders: int | None) -> None:
    race = Race.of(targets, 1.5)
    assert (race.leaders if race else None) == leaders


def test_the_targets_within_the_bound_are_found_as_without_a_race() -> None:
    data, slow = many_classes(), many_classes()
    raced, full = LRed()(data), LRed(race=0)(slow)
    bound = Race(4, 1.5).largest(sizes(full))
    within = sizes(full) <= bound
    assert 4 <= within.sum() < CLASSES - 4
    assert torch.allclose(sizes(raced)[within], sizes(full)[within])
    assert (sizes(raced)[~within] > bound).all()
    assert sizes(raced).isinf().sum() >= 4
    assert data.classifier.image_passes < slow.classifier.image_passes
    assert raced.target == full.target


def test_a_report_says_which_targets_were_stopped() -> None:
    raced, full = LRed()(many_classes()), LRed(race=0)(many_classes())
    stopped = [one for one in raced.classes if one.size is None]
    assert {one.statistic for one in stopped} == {0.0}
    assert f"{len(stopped)} of 16 targets were stopped" in raced.notes[0]
    assert "1.5 times the largest of the 4 smallest" in raced.notes[0]
    assert raced.p_calibrated is not None
    assert raced.null
    assert (raced.settings["race"], full.settings["race"]) == (1.5, 0.0)
    assert all(one.size for one in full.classes)
    assert not any("stopped" in note for note in full.notes)


@pytest.mark.parametrize(
    "settings", [{"sources": "pairs"}, {"sources": "all-to-all"}, {"schedule": "paper"}]
)
def test_only_the_fast_search_of_one_target_at_a_time_is_raced(settings: dict[str, str]) -> None:
    assert LRed(**settings)._race(43) is None  # type: ignore[arg-type]
    assert LRed(largest=3.0)._race(43) is None
    assert LRed()._race(43) == Race(5, 1.5)


def test_ten_classes_are_not_raced() -> None:
    raced, full = LRed()(many_classes(10)), LRed(race=0)(many_classes(10))
    assert raced.classes == full.classes
    assert (raced.p_calibrated, raced.settings) == (full.p_calibrated, full.settings)


@pytest.mark.parametrize(("race", "words"), [(-1.0, "not negative"), (0.9, "larger than 1")])
def test_a_bound_that_leaders_exceed_is_refused(race: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LRed(race=race)
