"""Batches of images with patterns in them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detectors import stamping
from detectors.embeddings import EMBEDDINGS
from detectors.rows import Rows
from detectors.stamping import Batch, Stamping, images_in, images_per_batch
from modelaudit.classifier import Classifier

SHAPE = (1, 1, 4)
LABELS = torch.tensor([0, 1, 1, 2])


def heaviest_pixel(device: str = "cpu") -> Classifier:
    """Four classes: the logits are the pixels."""
    return Classifier(lambda x: x.flatten(1), 4, SHAPE, device=device)


def stamped_images() -> Stamping:
    pixels = 0.5 * torch.eye(4)[LABELS].view(-1, *SHAPE)
    return Stamping(heaviest_pixel(), pixels, LABELS, EMBEDDINGS["additive"])


def towards(target: int) -> Tensor:
    """A pattern ``[1, 1, 1, 4]`` that makes all images the target."""
    return torch.eye(4)[target].view(1, *SHAPE)


def test_a_batch_holds_so_many_images_and_on_a_gpu_16_times_as_many() -> None:
    assert images_in(22, heaviest_pixel()) == 5
    assert images_in(22, heaviest_pixel("cuda")) == 88
    assert images_in(3, heaviest_pixel()) == 1
    assert images_per_batch(heaviest_pixel()) == stamping.VALUES_PER_BATCH // 4
    assert images_per_batch(Classifier(lambda x: x, 4, (3, 512, 512))) == 8


def test_a_batch_holds_more_images_where_the_model_makes_little_of_them() -> None:
    def narrow(x: Tensor) -> Tensor:
        return x[:, :, 0].clone().sin()[:, 0, :4]

    def wide(x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1)] * 25, 1)[:, :4]

    shape = (1, 100, 100)
    usual = stamping.PIXELS_PER_BATCH // 10_000
    assert images_per_batch(Classifier(wide, 4, shape)) == usual
    batch = images_per_batch(Classifier(narrow, 4, shape))
    assert batch == int(stamping.VALUES_PER_BATCH / ((10_000 + 100 + 100) / 3)) > usual


def test_batches_hold_every_image_of_the_sources_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamping, "PIXELS_PER_BATCH", 0)
    monkeypatch.setattr(stamping, "VALUES_PER_BATCH", 4 * 4)
    monkeypatch.setattr(stamping, "FEWEST_PER_BATCH", 1)
    rows, images = Rows.per_target(LABELS, 4), stamped_images()  # 3, 2, 3 and 4 images
    batches = list(images.batches(rows))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    pairs = [pair for b in batches for pair in zip(b.row.tolist(), b.image.tolist(), strict=True)]
    labels = LABELS.tolist()
    assert pairs == [(t, i) for t in range(4) for i, label in enumerate(labels) if label != t]


def test_groups_are_consecutive_rows_that_fit_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows.per_target(LABELS, 4)  # 3, 2, 3 and 4 images
    for most, ends in ((2, [1, 2, 3, 4]), (5, [2, 3, 4]), (8, [3, 4]), (12, [4])):
        monkeypatch.setattr(stamping, "PIXELS_PER_BATCH", 0)
        monkeypatch.setattr(stamping, "VALUES_PER_BATCH", 4 * most)
        monkeypatch.setattr(stamping, "FEWEST_PER_BATCH", 1)
        groups = list(stamped_images().groups(rows))
        assert [group.stop for group in groups] == ends
        assert [group.start for group in groups] == [0, *ends[:-1]]


def test_fractions_count_every_class_alike() -> None:
    """Class 1 has two images, the others have one."""
    images, rows = stamped_images(), Rows.per_target(LABELS, 4)[3:]
    q = torch.zeros(1, 4)
    for batch in images.batches(rows):
        hit, log_p = images.forward(towards(3), rows, batch)
        assert hit.tolist() == [1, 1, 1, 1]
        images.add_hits(q, batch, hit)
    assert q.tolist() == [[1, 1, 1, 0]]
    expected = -math.log1p(math.exp(-0.5) + 2 * math.exp(-1))  # logits 1, 0.5, 0, 0
    assert log_p.tolist() == pytest.approx([expected] * 4)
    w = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    assert float(images.objective(w, batch, log_p)) == pytest.approx(expected)


def test_half_of_the_images_of_a_class_count_one_half() -> None:
    images = stamped_images()
    batch = Batch(torch.tensor([0, 0]), torch.tensor([1, 2]))
    q = torch.zeros(1, 4)
    images.add_hits(q, batch, torch.tensor([1.0, 0.0]))
    assert q.tolist() == [[0, 0.5, 0, 0]]
    w = torch.tensor([[0.0, 0.8, 0.0, 0.0]])
    assert float(images.objective(w, batch, torch.tensor([-1.0, -2.0]))) == pytest.approx(-1.2)
