"""The smallest mask, with its colours, that sends images to a class: Neural Cleanse's search.

Wang et al., "Neural Cleanse: Identifying and mitigating backdoor attacks in neural networks" (IEEE
S&P 2019), section IV, for all targets at once and with a weight per source class, so that it
minimises ``‖m‖₁`` subject to Q_t >= π as in Eqs. 13-15 of the L-RED paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from detectors.embeddings.patch import Patch
from detectors.rows import Rows
from detectors.search import SearchResult
from detectors.stamping import Stamping
from detectors.types import Progress
from modelaudit.classifier import Classifier

_PATCH = Patch()


@dataclass(frozen=True)
class MaskSearchConfig:
    """Settings of the search.

    Attributes:
        success: weighted share Q of the images that must be classified as the target, in (0, 1].
        steps: the largest number of optimiser steps; each sees all images of a row.
        learning_rate: of Adam, on the inverse hyperbolic tangent of mask and colours.
        first_mask: the search starts from masks that are uniform in [0, ``first_mask``].
        first_cost: λ, the price of the mask, from the first time that Q was large enough on.
        cost_factor: λ rises by this factor, and falls by its power 1.5.
        patience: steps with Q large enough (too small) after which λ rises (falls).
        stop_after: steps without a smaller mask after which a row ends, once its λ has both risen
            and fallen.
    """

    success: float
    steps: int
    learning_rate: float
    first_mask: float
    first_cost: float
    cost_factor: float
    patience: int
    stop_after: int


class _Price:
    """λ of every row: as high as it can be with Q large enough."""

    def __init__(self, rows: int, config: MaskSearchConfig, device: torch.device) -> None:
        self.config = config
        self.cost = torch.zeros(rows, device=device)
        self._run = torch.zeros(rows, dtype=torch.long, device=device)  # > 0: steps of success
        self._rose = torch.zeros(rows, dtype=torch.bool, device=device)
        self._fell = self._rose.clone()

    @property
    def settled(self) -> Tensor:
        """Rows whose λ has both risen and fallen."""
        return self._rose & self._fell

    def update(self, rows: Tensor, good: Tensor) -> None:
        """Take the outcomes ``good`` of one step of these rows into account."""
        config, run = self.config, self._run[rows]
        run = torch.where(good, run.clamp_min(0) + 1, run.clamp_max(0) - 1)
        rise, fall = run >= config.patience, run <= -config.patience
        cost = self.cost[rows]
        first = rise & (cost == 0)
        self._rose[rows] |= rise & ~first
        self._fell[rows] |= fall & (cost > 0)
        cost = torch.where(rise, cost * config.cost_factor, cost)
        cost = torch.where(fall, cost / config.cost_factor**1.5, cost)
        self.cost[rows] = torch.where(first, config.first_cost, cost)
        self._run[rows] = run.masked_fill(rise | fall, 0)


class MaskSearch:
    """Adam on mask and colours, with a price of the mask that follows the success.

    Args:
        classifier: the suspect model.
        pixels: clean images ``[n, C, H, W]`` in [0, 1].
        labels: their classes ``[n]``.
    """

    def __init__(
        self, classifier: Classifier, pixels: Tensor, labels: Tensor, config: MaskSearchConfig
    ) -> None:
        self.classifier = classifier
        self.config = config
        self._stamping = Stamping(classifier, pixels, labels, _PATCH)

    def run(
        self,
        rows: Rows,
        weights: Tensor,
        generator: torch.Generator,
        progress: Progress = lambda share: None,
    ) -> SearchResult:
        """Estimate one mask with its colours per row.

        Args:
            rows: what to search for.
            weights: w_s of every row ``[R, K]``, summing to 1.
            generator: for the random masks and colours to start from.
        """
        config, device = self.config, self.classifier.device
        free = self._start(len(rows), generator)
        adam = torch.optim.Adam([free], lr=config.learning_rate, betas=(0.5, 0.9))
        price, best = _Price(len(rows), config, device), self._nothing_found(weights)
        idle = torch.zeros(len(rows), dtype=torch.long, device=device)
        active = torch.arange(len(rows), device=device)
        for step in range(config.steps):
            theta, w = _pattern(free[active]), weights[active]
            work = partial(self._evaluate, theta.detach(), w, rows[active])
            q, gradient = self._stamping.batch.within_memory(work)
            good = (w * q).sum(1) >= config.success
            smaller = _keep(best, active, good, theta.detach(), q)
            best.steps[active] += 1
            idle[active] = torch.where(smaller, 0, idle[active] + 1)
            price.update(active, good)
            adam.zero_grad()
            loss = (theta * gradient).sum() + (price.cost[active] * _PATCH.size(theta)).sum()
            loss.backward()
            adam.step()
            ended = price.settled & (idle >= config.stop_after) & best.size.isfinite()
            active = active[~ended[active]]
            if not len(active):
                break
            progress(max(step / config.steps, 1 - len(active) / len(rows)))
        progress(1.0)
        return best

    def _start(self, rows: int, generator: torch.Generator) -> Tensor:
        """Free variables of random masks and colours ``[rows, C + 1, H, W]``."""
        shape = _PATCH.init(rows, self.classifier.input_shape).shape
        values = torch.rand(shape, generator=generator)
        values[:, -1] *= self.config.first_mask
        free = torch.atanh((2 * values - 1) * (1 - 1e-6))
        return free.to(self.classifier.device).requires_grad_()

    def _nothing_found(self, weights: Tensor) -> SearchResult:
        rows, device = len(weights), weights.device
        return SearchResult(
            theta=_PATCH.init(rows, self.classifier.input_shape).to(device),
            size=torch.full((rows,), torch.inf, device=device),
            weights=weights,
            flips=torch.zeros_like(weights),
            steps=torch.zeros(rows, dtype=torch.long, device=device),
            lost=torch.zeros(rows, dtype=torch.bool, device=device),
        )

    def _evaluate(self, theta: Tensor, weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Misclassification fractions q_st ``[R, K]`` and the gradient of the cross-entropy."""
        leaf = theta.clone().requires_grad_()
        q, gradient = torch.zeros_like(weights), torch.zeros_like(theta)
        for batch in self._stamping.batches(rows):
            hit, log_p = self._stamping.forward(leaf, rows, batch)
            self._stamping.add_hits(q, batch, hit)
            cross_entropy = -self._stamping.objective(weights, batch, log_p)
            gradient += torch.autograd.grad(cross_entropy, leaf)[0]
        return q, gradient


def _pattern(free: Tensor) -> Tensor:
    """Mask and colours of free variables ``[R, C + 1, H, W]``, as ``Patch`` stores them."""
    values = (free.tanh() + 1) / 2
    mask = values[:, -1:]
    return torch.cat((values[:, :-1] * mask, mask), 1)


def _keep(best: SearchResult, active: Tensor, good: Tensor, theta: Tensor, q: Tensor) -> Tensor:
    """Store the successful patterns that are smaller than before; which rows they are."""
    size = _PATCH.size(theta)
    smaller = good & (size < best.size[active])
    index = active[smaller]
    best.size[index], best.theta[index] = size[smaller], theta[smaller]
    best.flips[index] = q[smaller]
    return smaller
