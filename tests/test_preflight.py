"""Preflight: every check in the state in which it should speak up, and silent otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier, OutputKind
from modelaudit.errors import ImagesError, ModelFileError
from modelaudit.images import CleanImages
from modelaudit.preflight import CHECKS, confusion_matrix, run_preflight
from modelaudit.preflight_model import check_gradients
from tests.detectors.cramped import Cramped

K = 5


def make_images(labels: list[int], **fields: object) -> CleanImages:
    """Image of class c: pixel c is bright."""
    n = len(labels)
    pixels = 0.1 * torch.rand(n, 1, 1, K, generator=torch.Generator().manual_seed(0))
    pixels[torch.arange(n), 0, 0, torch.tensor(labels)] += 0.8
    images = CleanImages(
        pixels,
        torch.tensor(labels),
        tuple(Path(f"{i}.png") for i in range(n)),
        ("0" * 64,) * n,
        (False,) * n,
    )
    return replace(images, **fields)


FOUR_EACH = [c for c in range(K) for _ in range(4)]


class Brightest(nn.Module):
    """The class of the brightest pixel, in another order of the outputs if one is given."""

    def __init__(self, order: list[int] | None = None, scale: float = 5.0) -> None:
        super().__init__()
        self.order = order or list(range(K))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, self.order]


def report_for(
    module: nn.Module | Callable[[Tensor], Tensor],
    images: CleanImages | None = None,
    outputs: OutputKind = "logits",
    num_classes: int = K,
    images_per_class: int = 4,
    floor: float = 0.5,
):
    images = images or make_images(FOUR_EACH)
    classifier = Classifier(module, num_classes, (1, 1, K), outputs=outputs)
    return run_preflight(classifier, images, images, images_per_class, floor)


def check(report, name):
    return next(check for check in report.checks if check.name == name)


def test_a_good_model_passes_all_checks():
    report = report_for(Brightest())
    assert {c.status for c in report.checks} == {"ok"}
    assert report.worst == "ok"
    assert report.clean_accuracy == 1.0
    assert torch.equal(report.confusion, 4 * torch.eye(K, dtype=torch.long))
    report.raise_for_errors()


def test_the_checks_take_fewer_images_at_once_where_memory_is_short():
    roomy, cramped = report_for(Brightest()), report_for(Cramped(Brightest(), room=9))
    assert cramped.checks == roomy.checks
    # A lack of memory says nothing of the model's gradients.
    with pytest.raises(torch.OutOfMemoryError):
        check_gradients(
            Classifier(Cramped(Brightest(), room=0), K, (1, 1, K)), make_images(FOUR_EACH)
        )


def test_every_check_is_in_the_table_once_and_the_table_is_complete():
    names = [description.name for description in CHECKS]
    assert len(names) == len(set(names))
    assert {c.name for c in report_for(Brightest()).checks} == set(names)
    assert all(d.raised_if and d.meaning and d.advice for d in CHECKS)


def test_confusion_matrix():
    found = confusion_matrix(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 2]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_not_finite_outputs_are_a_model_file_error():
    report = report_for(lambda x: x.flatten(1) / 0)
    assert [c.status for c in report.checks] == ["ok", "error"]
    assert report.clean_accuracy is None
    with pytest.raises(ModelFileError, match="20 of 20 clean images are NaN or infinite"):
        report.raise_for_errors()


@pytest.mark.parametrize(
    ("labels", "fields", "num_classes", "status", "said"),
    [
        (FOUR_EACH, {}, 4, "error", "5 class folders up to index 4, but the model has 4 outputs"),
        ([4, 4], {}, 4, "error", "up to index 4"),
        (FOUR_EACH, {}, 1, "error", "has 1 output"),
        ([0, 1, 2], {"mapping": "sorted names"}, K, "error", "3 class folders with names for 5"),
        ([0, 1, 2], {"mapping": "labels", "class_names": tuple("abcde")}, K, "note", "3 of 5"),
        (FOUR_EACH, {"mapping": "labels", "class_names": tuple("abcdef")}, K, "warning", "shifted"),
        ([1, 1], {}, K, "warning", "Only class '1'"),
        (FOUR_EACH, {"mapping": "sorted names", "class_names": tuple("abcde")}, K, "ok", "5"),
    ],
)
def test_output_count(labels, fields, num_classes, status, said):
    report = report_for(Brightest(), make_images(labels, **fields), num_classes=num_classes)
    found = check(report, "output-count")
    assert found.status == status
    assert said in found.message
    if status == "error":
        assert len(report.checks) == 1
        with pytest.raises(ImagesError, match=r".*\. .+"):
            report.raise_for_errors()


def test_accuracy_below_the_floor():
    images = make_images(FOUR_EACH)
    flipped = images.labels.clone()
    flipped[:12] = (flipped[:12] + torch.arange(1, 13) % 4 + 1) % K
    report = report_for(Brightest(), replace(images, labels=flipped))
    found = check(report, "clean-accuracy")
    assert found.status == "inconclusive"
    assert "below the floor of 50%" in found.message
    assert "--preprocess" in found.advice


def test_accuracy_that_guessing_explains():
    constant = report_for(lambda x: torch.eye(K)[:1].expand(len(x), K) + 0 * x.sum(), floor=0.1)
    found = check(constant, "clean-accuracy")
    assert found.status == "inconclusive"
    assert "not clearly above guessing (20.0%" in found.message
    few = report_for(Brightest(), make_images([0, 1]))  # 2 of 2 where 1 of 2 is guessing
    assert check(few, "clean-accuracy").status == "inconclusive"


def test_folders_in_another_order_are_named_with_the_likely_mapping():
    # output j reads pixel order[j], so class c comes out at order.index(c)
    report = report_for(Brightest([1, 2, 0, 3, 4]), make_images(FOUR_EACH))
    found = check(report, "folder-order")
    assert found.status == "inconclusive"
    assert "'0' -> output 2, '1' -> output 0, '2' -> output 1." in found.message
    assert "with another order on 100%" in found.message
    assert check(report, "clean-accuracy").status == "inconclusive"  # 40 %
    assert check(report, "misclassified").status == "warning"


def test_random_predictions_are_no_other_order():
    generator = torch.Generator().manual_seed(0)
    for per_class in (1, 4):
        images = make_images([c for c in range(K) for _ in range(per_class)])
        for _ in range(20):
            answers = torch.randint(K, (len(images),), generator=generator)
            classifier = Classifier(Brightest(), K, (1, 1, K))
            report = run_preflight(classifier, images, images, 4, predictions=answers)
            assert check(report, "folder-order").status == "ok"


def test_a_random_layer_is_noticed():
    class Noisy(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.5, training=True))

    torch.manual_seed(0)
    assert check(report_for(Noisy()), "deterministic").status == "inconclusive"

    class SlightlyNoisy(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.02 * torch.rand(len(x), K)

    assert check(report_for(SlightlyNoisy()), "deterministic").status == "warning"


class BatchNorm(nn.Module):
    """Training mode baked in: the batch's own statistics."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 * nn.functional.batch_norm(x.flatten(1), None, None, training=True)


def test_batch_normalisation_in_training_mode_is_noticed():
    report = report_for(BatchNorm())
    found = check(report, "batch-independent")
    assert found.status == "inconclusive"
    assert "fails on a batch of one" in found.message
    assert "model.eval()" in found.advice
    assert check(report, "deterministic").status == "ok"

    found = check(report_for(lambda x: 5 * (x - x.mean(0)).flatten(1)), "batch-independent")
    assert found.status == "inconclusive"
    assert "differ by" in found.message


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (5 * x.flatten(1)).round() + 0 * x.flatten(1)


@pytest.mark.parametrize(
    ("module", "outputs", "status"),
    [
        (Rounded(), "logits", "inconclusive"),  # zero
        (lambda x: 5 * x.detach().flatten(1), "logits", "inconclusive"),  # none at all
        (lambda x: (5000 * x).flatten(1).softmax(1), "probabilities", "inconclusive"),  # saturated
        (lambda x: (5 * x).flatten(1).softmax(1), "probabilities", "ok"),
        (Brightest(scale=1000.0), "logits", "ok"),  # confident, but the logits still tell
    ],
)
def test_gradients(module, outputs, status):
    assert check(report_for(module, outputs=outputs), "gradients").status == status


def test_some_gradients_missing_is_a_warning():
    def module(x: Tensor) -> Tensor:
        alive = (torch.arange(len(x)) % 4 != 0).float()[:, None]
        return 5 * (alive * x.flatten(1) + (1 - alive) * x.flatten(1).detach())

    found = check(report_for(module), "gradients")
    assert found.status == "warning"
    assert "15 of 20" in found.message


def test_few_classes():
    images = make_images([0, 1, 2] * 4)
    report = report_for(lambda x: 5 * x.flatten(1)[:, :3], images, num_classes=3)
    found = check(report, "class-count")
    assert found.status == "warning"
    assert "3 classes" in found.message


def test_notes_on_images_and_outputs():
    images = make_images([*FOUR_EACH, 0], was_resized=(True, False, True) + (False,) * 18)
    report = report_for(
        lambda x: (5 * x).flatten(1).log_softmax(1),
        images,
        outputs="log-probabilities",
        images_per_class=5,
    )
    assert check(report, "resized").message == "2 of 21 images were resized to 1 x 5."
    few = check(report, "few-images")
    assert few.status == "note"
    assert few.message.endswith("'1' (4), '2' (4), '3' (4), '4' (4).")
    assert check(report, "output-kind").status == "note"
    assert report.worst == "note"
    assert {c.name for c in report.by_status("note")} == {"resized", "few-images", "output-kind"}


def test_a_softmax_that_was_removed_is_noted():
    classifier = Classifier(Brightest(), K, (1, 1, K), without_softmax=True)
    images = make_images(FOUR_EACH)
    found = check(run_preflight(classifier, images, images, 4), "output-kind")
    assert found.status == "note"
    assert "ends in a softmax" in found.message
    assert "removed for the search" in found.message
    assert found.advice == ""


def test_sigmoids_are_noted():
    report = report_for(nn.Sequential(Brightest(), nn.Sigmoid()), outputs="sigmoid")
    found = check(report, "output-kind")
    assert (found.status, report.worst) == ("note", "note")
    assert "sigmoid per class" in found.message
    assert "without its final sigmoid" in found.advice
