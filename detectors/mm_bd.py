"""MM-BD: how far can an input lead the model to prefer class t over all others?

Wang, Xiang, Miller, Kesidis, "MM-BD: Post-training detection of backdoor attacks with arbitrary
backdoor pattern types using a maximum margin statistic" (IEEE S&P 2024). A backdoor is learned from
images of many classes that get one label, which makes the target's logit overtake the others by far
on some input. That input needs no clean images: it is searched from noise.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from detectors.gamma import SpreadPrior
from detectors.lred import PRIOR_WEIGHT
from detectors.margin import margins
from detectors.order_statistic import OrderStatisticTest, order_statistic_test
from detectors.stamping import images_per_batch
from detectors.types import ClassStatistic, DetectorInput, DetectorResult, Progress
from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize

#: Step of the paper's schedule, times the gradient of the margin (public code).
_PAPER_STEP = 0.01
#: How far the steps of the fast schedule move a pixel in total, at most: from anywhere to 0 or 1.
_TRAVEL = 1.5
#: Of the margins of clean models; see fixtures/results/mm-bd.md.
#: Inputs that no image is like lead some clean models of other people to one class by far.
PRIOR = SpreadPrior(shape=15.0, weight=PRIOR_WEIGHT, strays=0.02)


@dataclass(frozen=True)
class MmBd:
    """MM-BD with its settings.

    Attributes:
        name: registered name.
        schedule: ``fast`` (default): steps along the sign of the gradient, whose length falls
            linearly to 0: they need no scale of the logits, reach any corner of [0, 1] and settle
            at a maximum. ``paper``: plain gradient steps of 0.01, as in the paper's public code,
            without its stopping rule (a relative change of the margin below 1e-5).
        starts: random inputs per class; 0 means the schedule's default: 10 (fast) or 30 (paper).
        steps: ascent steps; 0 means the schedule's default: 30 (fast) or 300 (paper).
        prior: whether the null's spread is estimated with what is known of clean models; see
            :class:`detectors.gamma.SpreadPrior`. The paper's p-value never is; its
            Gamma starts at 0, where the public code fits the start too.
    """

    name: str = "mm-bd"
    schedule: Literal["fast", "paper"] = "fast"
    starts: int = 0
    steps: int = 0
    prior: bool = True

    def __post_init__(self) -> None:
        for setting in ("starts", "steps"):
            if getattr(self, setting) < 0:
                raise ValueError(f"{setting} is {getattr(self, setting)}; it must not be negative")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Search the largest margin of every class and test the largest of them."""
        begin, passes = time.perf_counter(), data.classifier.image_passes
        paper = self.schedule == "paper"
        starts = self.starts or (30 if paper else 10)
        steps = self.steps or (300 if paper else 30)
        margins = largest_margins(
            data.classifier, starts, steps, paper, data.generator, data.progress
        )
        # A class that no input leads to has no pattern, as the test calls it.
        statistics = margins.clamp_min(0).numpy()
        test = order_statistic_test(statistics, prior=PRIOR if self.prior else None, several=True)
        if (statistics == statistics.max()).sum() > 1 and test.index is not None:
            test = OrderStatisticTest(None, reason="several classes tie for the largest margin")
        return DetectorResult(
            detector=self.name,
            p_plugin=test.p_plugin,
            log_p_plugin=test.log_p_plugin,
            p_calibrated=test.p_calibrated,
            target=test.index,
            others=test.others,
            sources={},
            classes=_class_statistics(margins, steps),
            unit="largest margin of the logit over all others; larger is more suspicious",
            patterns={},
            image_passes=data.classifier.image_passes - passes,
            seconds=time.perf_counter() - begin,
            null=test.null,
            settings={
                "schedule": self.schedule,
                "starts": starts,
                "steps": steps,
                "prior": self.prior,
            },
            notes=_notes(data.classifier, margins),
            reason=test.reason,
            # Margins of probabilities end where the probabilities do: several classes tie there.
            applicable=not test.reason or data.classifier.outputs == "logits",
            critical=test.critical,
        )


def largest_margins(
    classifier: Classifier,
    starts: int,
    steps: int,
    paper: bool,
    generator: torch.Generator,
    progress: Progress = lambda share: None,
) -> Tensor:
    """``max_x [logit_t(x) - max_{k≠t} logit_k(x)]`` over x in [0, 1] for every class t, ``[K]``.

    Args:
        starts: uniform random inputs per class; the largest margin that any of them reaches counts.
        paper: see :class:`MmBd`.
    """
    device, classes = classifier.device, classifier.num_classes
    targets = torch.arange(classes, device=device).repeat_interleave(starts)
    largest = torch.full((len(targets),), -torch.inf, device=device)
    batch, done = BatchSize(images_per_batch(classifier)), 0
    size = batch.images
    # All classes and starts are independent; a batch is only what fits the caches. 10,000 inputs
    # of 3x224x224 at once would take 6 GB.
    for target, best in zip(targets.split(size), largest.split(size), strict=True):
        inputs = torch.rand(len(target), *classifier.input_shape, generator=generator).to(device)
        for step in range(steps):
            work = partial(_ascent, classifier, inputs, target, batch)
            margin, gradient = batch.within_memory(work)
            best.copy_(torch.maximum(best, margin))  # a view: what is written to it stays
            if paper:
                move = _PAPER_STEP * gradient
            else:
                move = _TRAVEL * 2 / steps * (1 - step / steps) * gradient.sign()
            inputs.add_(move).clamp_(0, 1)
            progress((done + len(inputs) * step / steps) / len(targets))
        done += len(inputs)
    progress(1.0)
    return largest.view(classes, starts).amax(1).double().cpu()


def _ascent(
    classifier: Classifier, x: Tensor, target: Tensor, batch: BatchSize
) -> tuple[Tensor, Tensor]:
    """The margin of class t over all others ``[B]`` and its gradient ``[B, C, H, W]``."""
    ahead, gradients = [], []
    for part, goal in zip(x.split(batch.images), target.split(batch.images), strict=True):
        leaf = part.clone().requires_grad_()
        margin = margins(classifier(leaf), goal)
        gradients.append(torch.autograd.grad(margin.sum(), leaf)[0])
        ahead.append(margin.detach())
    return torch.cat(ahead), torch.cat(gradients)


def _class_statistics(margins: Tensor, steps: int) -> tuple[ClassStatistic, ...]:
    """One entry per class; there is no pattern, so the size is the margin.

    A margin that is no number is left out here; the test's reason tells of it.
    """
    margins = margins.where(margins.isfinite(), 0.0)
    return tuple(
        ClassStatistic(
            target=target,
            statistic=max(margin, 0.0),
            size=margin if margin > 0 else None,
            flip_rate=0.0,
            weights={},
            steps=steps,
        )
        for target, margin in enumerate(margins.tolist())
    )


def _notes(classifier: Classifier, margins: Tensor) -> tuple[str, ...]:
    notes = []
    if unreached := (margins <= 0).nonzero().flatten().tolist():
        listed = ", ".join(map(str, unreached[:10])) + (" ..." if len(unreached) > 10 else "")
        notes.append(f"no input was found that the model assigns to class {listed}")
    if classifier.outputs in ("probabilities", "sigmoid"):
        notes.append(
            "the model gives probabilities, not logits: margins are their log ratios, and those "
            "that round to 0 or 1 hide how large a margin is"
        )
    return tuple(notes)
