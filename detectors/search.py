"""Pattern estimation: Algorithm 1 of the L-RED paper, for any embedding and all targets at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from detectors.embeddings.protocol import Embedding
from detectors.race import Race
from detectors.rows import Rows, broadcastable
from detectors.stamping import Batch, Stamping, images_in
from modelaudit.classifier import Classifier

#: Pixel values per row for which all intermediate results are kept: 390 images of 3x32x32, about
#: 3.5 GB with a full-width ResNet-18. A larger row is evaluated twice.
_VALUES_IN_MEMORY = 1_200_000
#: Fractions Q_t that were computed in bfloat16 and are at least π less this are computed anew.
_DOUBT = 0.1


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search.

    Attributes:
        pi: misclassification fraction π that a pattern must reach, in (0, 1).
        delta: length δ of the first step, in the unit of the embedding's size.
        growth: later steps have length ``max(delta, growth * size)``; 0 is the paper's constant δ.
        tau_max: number of steps after which a target is given up (τ_max).
        largest: a row whose pattern has grown beyond this size is given up.
        entropy_weights: update the source weights by Eqs. 6-8; otherwise they stay uniform (U-RED).
        refine: halvings of the last step, towards the boundary Q = π; 0 is the paper's Algorithm 1.
        bfloat16: compute gradients in bfloat16. Whether Q_t ≥ π is decided in float32.
        race: lowers ``largest`` by and by, to what the patterns found so far make of it.
    """

    pi: float
    delta: float
    growth: float
    tau_max: int
    entropy_weights: bool
    refine: int
    largest: float = math.inf
    bfloat16: bool = False
    race: Race | None = None


@dataclass(frozen=True)
class SearchResult:
    """Estimated patterns.

    Attributes:
        theta: patterns ``[R, *]``.
        size: ``[R]``; infinite where no pattern was found or the row was stopped.
        weights: final source weights ``[R, K]``.
        flips: misclassification fractions q_st of the final pattern ``[R, K]``.
        steps: ascent steps taken ``[R]``.
        lost: where the search ended because the gradient vanished, or was no number ``[R]``.
    """

    theta: Tensor
    size: Tensor
    weights: Tensor
    flips: Tensor
    steps: Tensor
    lost: Tensor


def update_weights(q: Tensor, w: Tensor, rows: Rows) -> Tensor:
    """Source weights by the entropy Lagrangian with its automatic temperature (Eqs. 6-8).

    Args:
        q: misclassification fractions q_st(v⁽ᵗ⁺¹⁾) ``[R, K]``.
        w: weights w⁽ᵗ⁾ ``[R, K]``.

    Returns:
        w⁽ᵗ⁺¹⁾ ``[R, K]``; uniform where Q_t = 0 (Algorithm 1, line 12).
    """
    weighted = (w * q).sum(1, keepdim=True)  # Q_t(v, w)
    temperature = -weighted.clamp(1e-12, 1 - 1e-6).log()  # Eq. 7
    softmax = (q / temperature).masked_fill(~rows.support, -torch.inf).softmax(1)  # Eq. 8
    return torch.where(weighted > 0, softmax, rows.uniform_weights())


def _has_direction(gradient: Tensor) -> Tensor:
    """Which of the gradients ``[R, *]`` lead anywhere ``[R]``.

    Where a shift has switched all neurons off, or the outputs are saturated, none does.
    """
    return gradient.flatten(1).norm(dim=1) > 0  # not where it underflows, and not for NaN


class PatternSearch:
    """Algorithm 1 for every row at once.

    A row that has reached Q_t ≥ π leaves the batch. The result for a row does not depend on the
    others, except for the rounding of batched arithmetic.

    Args:
        classifier: the suspect model.
        pixels: clean images ``[n, C, H, W]`` in [0, 1].
        labels: their classes ``[n]``.
    """

    def __init__(
        self,
        classifier: Classifier,
        pixels: Tensor,
        labels: Tensor,
        embedding: Embedding,
        config: SearchConfig,
    ) -> None:
        self.classifier = classifier
        self.embedding = embedding
        self.config = config
        self._stamping = Stamping(classifier, pixels, labels, embedding)
        self._progress: Callable[[float], None] = lambda share: None
        self._done = 0.0

    def run(self, rows: Rows, progress: Callable[[float], None] | None = None) -> SearchResult:
        """Estimate one pattern per row.

        Args:
            rows: what to search for.
            progress: called after every batch with the estimated share of the work done, in [0, 1].
        """
        self._progress, self._done = progress or self._progress, 0.0
        count, shape = len(rows), self.classifier.input_shape
        theta = self.embedding.init(count, shape).to(self.classifier.device)
        before, w = theta.clone(), rows.uniform_weights()
        steps = torch.zeros(count, dtype=torch.long, device=theta.device)
        size = torch.full((count,), torch.inf, device=theta.device)  # where a pattern was found
        active = torch.arange(count, device=theta.device)
        stride = torch.ones(count, device=theta.device)
        lost = torch.zeros_like(active, dtype=torch.bool)
        _, gradient, reached = self._evaluate(theta, w, rows, update=False)
        for step in range(1, self.config.tau_max + 1):
            # Whoever is there without any change is found by the first step.
            uphill = _has_direction(gradient) | reached
            lost[active[~uphill]] = True
            steps[active[~uphill]] = self.config.tau_max  # all of which would lead nowhere
            active, gradient = active[uphill], gradient[uphill]
            if not len(active):
                break
            before[active] = theta[active]
            theta[active] = self._ascend(theta[active], gradient, stride[active])
            stride[active] = self._stride(stride[active], before[active], theta[active])
            steps[active] += 1
            w_new, gradient, reached = self._evaluate(theta[active], w[active], rows[active])
            w[active] = w_new
            grown = self.embedding.size(theta[active])
            size[active[reached]] = grown[reached]
            going = ~reached & (grown < self._largest(size))
            active, gradient, reached = active[going], gradient[going], reached[going]
            self._done = min(max(1 - len(active) / count, step / self.config.tau_max), 0.99)
        found = size.isfinite()
        if found.any():
            theta[found] = self._refine(before[found], theta[found], w[found], rows[found])
        size = self.embedding.size(theta)
        size = torch.where(found & (size <= self.config.largest), size, torch.inf)
        result = SearchResult(theta, size, w, self.flips(theta, rows), steps, lost)
        self._progress(1.0)
        return result

    def _largest(self, size: Tensor) -> float:
        """Beyond which size rows are given up, the patterns found so far having those ``[R]``."""
        race = self.config.race
        return min(self.config.largest, race.largest(size)) if race else self.config.largest

    def flips(self, theta: Tensor, rows: Rows) -> Tensor:
        """Misclassification fractions q_st ``[R, K]`` of patterns ``[R, *]`` (below Eq. 3)."""
        with torch.no_grad():
            q, _ = self._stamping.batch.within_memory(
                lambda: self._outcomes(theta, rows, self._stamping.batches(rows))
            )
        return q

    def _ascend(self, theta: Tensor, gradient: Tensor, stride: Tensor) -> Tensor:
        """Line 4 of Algorithm 1, with steps that grow with the pattern in the fast schedule."""
        length = (self.config.growth * self.embedding.size(theta)).clamp_min(self.config.delta)
        return self.embedding.step(theta, gradient, stride * length)

    def _stride(self, stride: Tensor, before: Tensor, theta: Tensor) -> Tensor:
        """Factor ``[R]`` on the next step of the fast schedule: twice the last after a step back.

        A long step may overshoot in one pixel, the next take it back, and so on for ever; a longer
        one takes other pixels along. After a step forward the factor falls to 1 again.
        """
        back = self.embedding.size(theta) <= self.embedding.size(before)
        back &= self.config.growth > 0
        return torch.where(back, 2 * stride, (stride / 2).clamp_min(1))

    def _evaluate(
        self, theta: Tensor, w: Tensor, rows: Rows, update: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Lines 5-13 of Algorithm 1 for the rows at hand, and the next step's gradient.

        Returns:
            The new weights ``[R, K]`` (unchanged where the row has reached Q_t ≥ π), the gradient
            of J_t with them ``[R, *]``, and which rows have reached it ``[R]``.
        """
        w, gradient = w.clone(), torch.zeros_like(theta)
        reached = torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
        for group in self._stamping.groups(rows):
            work = partial(self._evaluate_group, theta[group], w[group], rows[group], update)
            found = self._stamping.batch.within_memory(work)
            w[group], gradient[group], reached[group] = found
        return w, gradient, reached

    def _evaluate_group(
        self, theta: Tensor, w: Tensor, rows: Rows, update: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for rows that are evaluated together."""
        leaf, gradient = theta.clone().requires_grad_(), torch.zeros_like(theta)
        batches = list(self._stamping.batches(rows))
        # The weights depend on all of a row's images, and the gradient on the weights.
        keep = sum(map(len, batches)) <= self._most_kept()
        with torch.set_grad_enabled(keep):
            q, kept = self._outcomes(leaf, rows, batches, self.config.bfloat16)
        done = self._reached(theta, w, rows, q)
        if update and self.config.entropy_weights:
            w = torch.where(done[:, None], w, update_weights(q, w, rows))
        if done.all():
            return w, gradient, done
        for batch, log_p in zip(batches, kept, strict=True):
            if not keep:
                _, log_p = self._forward(leaf, rows, batch, self.config.bfloat16)
            objective = self._stamping.objective(w, batch, log_p)
            gradient += torch.autograd.grad(objective, leaf)[0]
        return w, gradient, done

    def _reached(self, theta: Tensor, w: Tensor, rows: Rows, q: Tensor) -> Tensor:
        """Which rows have Q_t ≥ π ``[R]``; float32 decides where fractions ``q`` are less exact."""
        weighted = (w * q).sum(1)
        near = weighted >= self.config.pi - _DOUBT
        if self.config.bfloat16 and near.any():
            part = rows[near]
            with torch.no_grad():
                exact, _ = self._outcomes(theta[near], part, self._stamping.batches(part))
            weighted[near] = (w[near] * exact).sum(1)
        return weighted >= self.config.pi

    def _most_kept(self) -> int:
        """How many images all intermediate results are kept of: where memory is short, a batch."""
        batch = self._stamping.batch
        return batch.images if batch.halved else images_in(_VALUES_IN_MEMORY, self.classifier)

    def _outcomes(
        self, theta: Tensor, rows: Rows, batches: Iterable[Batch], bfloat16: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Misclassification fractions q_st ``[R, K]``, and log p(t | x) ``[b]`` of every batch."""
        q = torch.zeros(len(theta), self.classifier.num_classes, device=theta.device)
        log_ps = []
        for batch in batches:
            hit, log_p = self._forward(theta, rows, batch, bfloat16)
            self._stamping.add_hits(q, batch, hit)
            log_ps.append(log_p)
        return q, log_ps

    def _forward(
        self, theta: Tensor, rows: Rows, batch: Batch, bfloat16: bool
    ) -> tuple[Tensor, Tensor]:
        """:meth:`Stamping.forward`, which takes nearly all of the time: progress is told here."""
        outcome = self._stamping.forward(theta, rows, batch, bfloat16)
        self._progress(self._done)
        return outcome

    def _refine(self, before: Tensor, theta: Tensor, w: Tensor, rows: Rows) -> Tensor:
        """Go back along the last step to the boundary Q_t = π, by bisection with fixed weights.

        Long steps overshoot the boundary by different amounts; without this the sizes of different
        targets would not be comparable. The result keeps Q_t ≥ π.
        """
        low = torch.zeros(len(theta), device=theta.device)
        high = torch.ones_like(low)
        for _ in range(self.config.refine):
            middle = (low + high) / 2
            trial = before + broadcastable(middle, theta) * (theta - before)
            enough = (w * self.flips(trial, rows)).sum(1) >= self.config.pi
            high, low = torch.where(enough, middle, high), torch.where(enough, low, middle)
        return before + broadcastable(high, theta) * (theta - before)
