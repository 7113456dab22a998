"""Known answers for the pattern search."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import search, stamping
from detectors.embeddings import EMBEDDINGS
from detectors.lred import LRed
from detectors.rows import Rows
from detectors.search import PatternSearch, SearchConfig, update_weights
from detectors.types import DetectorInput
from modelaudit.classifier import Classifier
from tests.detectors.cramped import Cramped
from tests.detectors.models import SIDE, Linear, Planted, linear_input, orthonormal_rows

FAST = LRed()._search_config((1, SIDE, SIDE), 8)


def run(data: DetectorInput, embedding: str, config: SearchConfig) -> search.SearchResult:
    rows = Rows.per_target(data.labels, data.classifier.num_classes)
    return PatternSearch(
        data.classifier, data.pixels, data.labels, EMBEDDINGS[embedding], config
    ).run(rows)


@pytest.mark.parametrize("classes", [4, 6, 9])
def test_additive_size_is_near_the_closed_form(classes: int) -> None:
    """With orthonormal rows the best v = x a_t - y Σ a_s has ‖v‖ = β √(n / (n + 1)), n = K - 1."""
    beta = 0.8
    data = linear_input(orthonormal_rows(classes), beta)
    found = run(data, "additive", FAST)
    optimal = beta * math.sqrt((classes - 1) / classes)
    ratio = found.size / optimal
    assert (ratio >= 0.999).all()
    assert (ratio <= 1.25).all()


def test_sparse_size_is_near_the_closed_form() -> None:
    """Disjoint pixels per class: raising the target's heaviest pixels is a fractional knapsack."""
    rows = torch.zeros(5, SIDE * SIDE)
    for k in range(5):
        rows[k, 12 * k : 12 * k + 6] = torch.tensor([3.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    labels = torch.arange(5).repeat_interleave(2)
    pixels = torch.full((10, SIDE * SIDE), 0.5)
    for i, k in enumerate(labels.tolist()):
        pixels[i, 12 * k] += 0.45
        pixels[i, 12 * k + 1] += 0.45
    classifier = Classifier(Linear(rows), 5, (1, SIDE, SIDE))
    data = DetectorInput(
        classifier, pixels.view(-1, 1, SIDE, SIDE), labels, torch.Generator().manual_seed(0)
    )
    config = LRed(embedding="sparse")._search_config((1, SIDE, SIDE), 8)
    found = run(data, "sparse", config)
    # Margin 0.45 * (3 + 2) = 2.25. A grey pixel has room for 0.5: the heaviest gives 1.5 for 0.5,
    # the next 0.75 cost 0.375 at weight 2. Lowering the sources' pixels helps one source at a time.
    assert (found.size >= 0.875 - 1e-3).all()
    assert (found.size <= 0.875 * 1.25).all()


def test_weights_follow_the_planted_source_class() -> None:
    rows = orthonormal_rows(7)
    model = Planted(rows[:6], rows[6], sources=[2], target=4)
    plain = linear_input(rows[:6], beta=0.9, per_class=4)
    classifier = Classifier(model, 6, (1, SIDE, SIDE))
    assert (classifier.predict(plain.pixels) == plain.labels).all()
    data = DetectorInput(classifier, plain.pixels, plain.labels, plain.generator)
    small_steps = LRed(delta=0.01, growth=0.02)
    found = run(data, "additive", small_steps._search_config((1, SIDE, SIDE), 8))
    assert found.size.argmin() == 4
    assert found.weights[4].argmax() == 2
    uniform = run(
        data, "additive", replace(small_steps, weights="uniform")._search_config((1, SIDE, SIDE), 8)
    )
    assert found.size[4] < uniform.size[4]


def test_entropy_weights_maximise_the_lagrangian() -> None:
    """Eq. 8 against random feasible weights: none has a larger Σ w q + T H(w) (Eq. 6)."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(6)
    rows = Rows.per_target(labels, 6)
    q = torch.rand(6, 6, generator=generator) * rows.support
    w = rows.uniform_weights()
    temperature = -(w * q).sum(1).log()
    best = update_weights(q, w, rows)

    def lagrangian(w: torch.Tensor) -> torch.Tensor:
        return (w * q).sum(1) - temperature * torch.xlogy(w, w).sum(1)

    assert torch.allclose(best.sum(1), torch.ones(6))
    assert (best.diagonal() == 0).all()
    for _ in range(200):
        other = torch.rand(6, 6, generator=generator).pow(3) * rows.support
        assert (lagrangian(other / other.sum(1, keepdim=True)) <= lagrangian(best) + 1e-6).all()


def test_weights_are_uniform_without_any_misclassification() -> None:
    rows = Rows.per_target(torch.arange(5), 5)
    w = update_weights(torch.zeros(5, 5), rows.uniform_weights(), rows)
    assert torch.equal(w, rows.uniform_weights())


def algorithm_1(data: DetectorInput, target: int, delta: float, pi: float) -> torch.Tensor:
    """The paper's pseudocode, one target, one image at a time, nothing shared with the search."""
    classes = data.classifier.num_classes
    v = torch.zeros(1, SIDE, SIDE)
    w0 = torch.full((classes,), 1 / (classes - 1))
    w0[target] = 0
    w = w0.clone()
    for _ in range(2000):
        leaf = v.clone().requires_grad_()
        j = torch.zeros(())
        for x, s in zip(data.pixels, data.labels.tolist(), strict=True):
            if s != target:
                count = int((data.labels == s).sum())
                log_p = data.classifier((x + leaf).clamp(0, 1)[None]).log_softmax(1)[0, target]
                j = j + w[s] / count * log_p
        (g,) = torch.autograd.grad(j, leaf)
        v = v + delta * g / g.norm()
        q = torch.zeros(classes)
        for x, s in zip(data.pixels, data.labels.tolist(), strict=True):
            if s != target:
                hit = data.classifier((x + v).clamp(0, 1)[None]).argmax() == target
                q[s] += hit.float() / int((data.labels == s).sum())
        weighted = (w * q).sum()
        if weighted >= pi:
            return v
        if weighted > 0:
            e = (q / -weighted.log()).exp()
            e[target] = 0
            w = e / e.sum()
        else:
            w = w0.clone()
    raise AssertionError("did not converge")


@pytest.mark.parametrize(("batch", "memory"), [(10**6, 10**6), (5, 10**6), (5, 5)])
def test_paper_schedule_is_algorithm_1(
    monkeypatch: pytest.MonkeyPatch, batch: int, memory: int
) -> None:
    """Also when a row needs several batches, and when it does not fit the memory."""
    monkeypatch.setattr(stamping, "PIXELS_PER_BATCH", 0)
    monkeypatch.setattr(stamping, "VALUES_PER_BATCH", batch * SIDE * SIDE)
    monkeypatch.setattr(stamping, "FEWEST_PER_BATCH", 1)
    monkeypatch.setattr(search, "_VALUES_IN_MEMORY", memory * SIDE * SIDE)
    generator = torch.Generator().manual_seed(3)
    data = linear_input(orthonormal_rows(4), beta=0.5, per_class=3)
    noise = 0.05 * torch.randn(data.pixels.shape, generator=generator)
    pixels = (data.pixels + noise).clamp(0, 1)
    data = DetectorInput(data.classifier, pixels, data.labels, generator)
    config = LRed(schedule="paper", delta=0.02)._search_config((1, SIDE, SIDE), 8)
    found = run(data, "additive", config)
    for target in range(4):
        expected = algorithm_1(data, target, delta=0.02, pi=0.9)
        assert torch.allclose(found.theta[target], expected, atol=1e-4)


def test_paper_schedule_has_the_papers_settings() -> None:
    config = LRed(schedule="paper")._search_config((1, SIDE, SIDE), 8)
    assert (config.delta, config.growth, config.refine, config.pi) == (1e-4, 0.0, 0, 0.9)


def test_result_reaches_pi_and_refinement_only_shrinks() -> None:
    data = linear_input(orthonormal_rows(5), 0.8)
    coarse = run(data, "additive", LRed(refine=0)._search_config((1, SIDE, SIDE), 8))
    fine = run(data, "additive", LRed(refine=6)._search_config((1, SIDE, SIDE), 8))
    assert (fine.size <= coarse.size + 1e-6).all()
    assert ((fine.weights * fine.flips).sum(1) >= 0.9 - 1e-6).all()


def test_a_target_that_cannot_be_reached_has_infinite_size() -> None:
    rows = orthonormal_rows(5)
    rows[3] = 0
    data = linear_input(rows, 0.8)
    pixels = data.pixels[data.labels != 3]
    labels = data.labels[data.labels != 3]
    data = DetectorInput(data.classifier, pixels, labels, data.generator)
    found = run(
        data, "additive", LRed(tau_max=3, growth=0.0, delta=0.01)._search_config((1, SIDE, SIDE), 8)
    )
    assert found.size.isinf().all()


def test_search_does_not_walk_in_circles() -> None:
    """A logit that peaks at a small change of its pixel: a fixed step jumps over it and back."""
    rows = torch.zeros(4, SIDE * SIDE)
    for k in range(4):
        rows[k, 16 * k : 16 * k + 16] = torch.linspace(1.0, 0.5, 16)

    class Peaked(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heaviest = (x - 0.5).flatten(1)[:, ::16]
            return super().forward(x) - 40 * (heaviest - 0.1).relu().pow(2)

    labels = torch.arange(4)
    pixels = (0.5 + 0.12 * (rows[labels] > 0)).view(-1, 1, SIDE, SIDE)
    classifier = Classifier(Peaked(rows), 4, (1, SIDE, SIDE))
    data = DetectorInput(classifier, pixels, labels, torch.Generator())
    found = run(data, "sparse", LRed(embedding="sparse")._search_config((1, SIDE, SIDE), 8))
    assert found.size.isfinite().all()


@pytest.mark.parametrize("refine", [0, 4])
def test_image_passes_are_counted(refine: int) -> None:
    """Of a search that finds nothing, so that there is nothing to refine."""
    data = linear_input(orthonormal_rows(4), 0.8, per_class=2)
    run(
        data,
        "additive",
        LRed(tau_max=2, growth=0, delta=1e-3, refine=refine)._search_config((1, SIDE, SIDE), 8),
    )
    # 4 targets x 6 images: 3 evaluations with gradient (start and two steps), the final flip rates.
    assert data.classifier.forwards == 24 * 4
    assert data.classifier.backwards == 24 * 3
    assert data.classifier.image_passes == (24 * 4 + 24 * 3) / 2


def test_a_row_is_given_up_at_the_largest_size() -> None:
    data = linear_input(orthonormal_rows(5), 0.8)
    config = replace(LRed(refine=0)._search_config((1, SIDE, SIDE), 8), largest=0.3)
    found = run(data, "additive", config)
    assert found.size.isinf().all()
    sizes = found.theta.flatten(1).norm(dim=1)
    assert (sizes >= 0.3).all()
    assert (sizes <= 0.3 + config.delta + 1e-5).all()


def cramped(data: DetectorInput, room: float) -> tuple[DetectorInput, Cramped]:
    model = data.classifier.module
    assert isinstance(model, nn.Module)
    short = Cramped(model, room)
    classifier = Classifier(short, data.classifier.num_classes, data.classifier.input_shape)
    return replace(data, classifier=classifier), short


@pytest.mark.parametrize("room", [1, 5, 11])
def test_a_search_goes_on_with_smaller_batches_where_memory_is_short(room: int) -> None:
    """Five rows of eight images; a graph that is kept for the gradient takes its room, too."""
    data = linear_input(orthonormal_rows(5), 0.8)
    short, model = cramped(data, room)
    found = run(short, "additive", FAST)
    assert model.failures > 0
    assert room / 2 < model.most <= room
    assert model.kept == 0
    assert torch.allclose(found.size, run(data, "additive", FAST).size, rtol=1e-4)


def test_where_there_is_enough_memory_nothing_is_evaluated_twice() -> None:
    data = linear_input(orthonormal_rows(5), 0.8)
    short, model = cramped(data, 40)
    run(short, "additive", FAST)
    run(data, "additive", FAST)
    assert model.failures == 0
    assert short.classifier.image_passes == data.classifier.image_passes


def test_a_search_that_finds_no_room_for_one_image_says_so() -> None:
    short, model = cramped(linear_input(orthonormal_rows(5), 0.8), 0)
    with pytest.raises(torch.OutOfMemoryError):
        run(short, "additive", FAST)
    assert model.kept == 0


class Hasty(Linear):
    """In bfloat16 it leaves the class of an image too early."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            logits = logits.float()
            logits = logits - 0.3 * (logits == logits.amax(1, keepdim=True))
        return logits


@pytest.mark.parametrize("model", [Linear, Hasty])
def test_in_bfloat16_float32_decides_what_is_reached(model: type[Linear]) -> None:
    rows = orthonormal_rows(6)
    data = linear_input(rows, 0.8)
    low = replace(data, classifier=Classifier(model(rows), 6, (1, SIDE, SIDE)))
    found = run(low, "additive", replace(FAST, bfloat16=True))
    assert torch.equal(found.size, found.theta.flatten(1).norm(dim=1))
    search_again = PatternSearch(
        data.classifier, data.pixels, data.labels, EMBEDDINGS["additive"], FAST
    )
    flips = search_again.flips(found.theta, Rows.per_target(data.labels, 6))
    assert ((found.weights * flips).sum(1) >= FAST.pi).all()
    ratio = found.size / (0.8 * math.sqrt(5 / 6))
    assert (ratio >= 0.999).all()
    assert (ratio <= 1.25).all()


@pytest.mark.parametrize("slope", [0.0, 1e-25, math.nan])
def test_a_gradient_that_leads_nowhere_ends_the_search_of_its_row(slope: float) -> None:
    """1e-25 is a number, but its square is not: the direction would be anything."""

    class Flat(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, arrived: Tensor) -> Tensor:
            return torch.full_like(arrived, slope)

    data = linear_input(orthonormal_rows(5), 0.8)
    module = data.classifier.module
    flat = Classifier(lambda x: module(Flat.apply(x)), 5, data.classifier.input_shape)
    found = run(replace(data, classifier=flat), "additive", FAST)
    assert found.size.isinf().all()
    assert (found.steps == FAST.tau_max).all()
    assert (found.theta == 0).all()
    assert found.lost.all()
    assert flat.image_passes < 10 * len(data.pixels)


@pytest.mark.parametrize(("after", "judged"), [(1, False), (1000, True)])
def test_a_search_that_lost_its_way_at_once_is_not_taken_for_one_that_found_nothing(
    after: int, judged: bool
) -> None:
    """Otherwise a model without gradients would pass."""

    class Losing(torch.autograd.Function):
        backwards = 0

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, arrived: Tensor) -> Tensor:
            Losing.backwards += 1
            return arrived if Losing.backwards <= after else torch.zeros_like(arrived)

    data = linear_input(orthonormal_rows(6), 0.8)
    module = data.classifier.module
    losing = Classifier(lambda x: module(Losing.apply(x)), 6, data.classifier.input_shape)
    detector = LRed(sources="all-to-all", weights="uniform", pi=0.99, largest=0.5)
    result = detector(replace(data, classifier=losing))
    assert all(one.size is None for one in result.classes)
    assert (result.p_calibrated is not None) == judged
    assert any("gradient vanished" in note for note in result.notes) != judged
