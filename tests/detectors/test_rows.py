"""Which classes are to become which."""

from __future__ import annotations

import torch

from detectors.rows import Rows, broadcastable, first_of_each_class

LABELS = torch.tensor([0, 1, 1, 3])  # there is no image of class 2


def test_every_class_is_a_target_for_all_others_that_have_images() -> None:
    rows = Rows.per_target(LABELS, 4)
    assert rows.targets.tolist() == [0, 1, 2, 3]
    assert rows.goals.tolist() == [[t] * 4 for t in range(4)]
    assert [row.nonzero().flatten().tolist() for row in rows.support] == [
        [1, 3],
        [0, 3],
        [0, 1, 3],
        [0, 1],
    ]
    assert rows.uniform_weights()[2].tolist() == torch.tensor([1 / 3, 1 / 3, 0, 1 / 3]).tolist()


def test_a_class_without_images_of_another_is_no_target() -> None:
    assert Rows.per_target(torch.tensor([1, 1]), 3).targets.tolist() == [0, 2]


def test_a_pair_has_one_source() -> None:
    rows = Rows.per_pair(LABELS, 4)
    pairs = list(zip(rows.support.int().argmax(1).tolist(), rows.targets.tolist(), strict=True))
    assert pairs == [(s, t) for t in range(4) for s in (0, 1, 3) if s != t]
    assert rows.support.sum(1).tolist() == [1] * len(rows)


def test_a_shift_moves_every_class_to_the_one_after_it() -> None:
    rows = Rows.per_shift(LABELS, 4)
    assert rows.goals.tolist() == [[1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert rows.support.tolist() == [[True, True, False, True]] * 3


def test_a_value_per_row_fits_patterns_of_any_shape() -> None:
    values = torch.tensor([1.0, 2.0])
    for shape in ((2,), (2, 3), (2, 3, 4, 5)):
        product = broadcastable(values, torch.ones(shape)) * torch.ones(shape)
        assert product[0].unique().tolist() == [1]
        assert product[1].unique().tolist() == [2]


def test_thinned_rows_keep_a_random_part_of_their_own_sources() -> None:
    rows = Rows.per_target(torch.arange(30), 30)
    thin = rows.thinned(6, torch.Generator().manual_seed(0))
    assert (thin.support.sum(1) == 6).all()
    assert not (thin.support & ~rows.support).any()
    assert (thin.goals == rows.goals).all()
    assert thin.support.any(0).all()  # every class is a source of some row
    assert rows.thinned(29, torch.Generator()) is rows


def test_the_first_images_of_each_class() -> None:
    labels = torch.tensor([2, 0, 2, 0, 2, 1])
    assert first_of_each_class(labels, 2).tolist() == [True, True, True, True, False, True]
