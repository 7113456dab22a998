"""How far can a change of one kind and one size, the same for all images, lead them to class t?

Ours. L-RED (:mod:`detectors.lred`) asks how *large* a pattern has to be until it turns 90 % of the
images, and in that the classes differ by nature: it grows until even the patterns of a clean model
work, made of what the class looks like. This asks how *much* a pattern of a small size does: by how
much it raises the margin of class t over all others. In a clean model a small change of any kind
does nearly as much for one class as for the next, because none of them works yet. A trigger works
by then, or begins to. As in MM-BD (:mod:`detectors.mm_bd`) what is maximised is the margin; the
kinds of changes are L-RED's embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from detectors.embeddings import EMBEDDINGS, Embedding
from detectors.gains import (
    CleanImages,
    Gained,
    Priors,
    cannot_compare,
    compare,
    in_those_of_the_median,
    mean_where,
    result_of,
    without_what_turns_none,
)
from detectors.gamma import SpreadPrior
from detectors.lred import PRIOR_WEIGHT
from detectors.margin import margins
from detectors.rows import broadcastable
from detectors.stamping import images_per_batch
from detectors.types import (
    DetectorInput,
    DetectorResult,
    settings_of,
    with_cost,
    without_test,
)
from modelaudit.memory import BatchSize
from modelaudit.watch import FeaturesUnavailable

#: How far the steps go in total, in sizes: from anywhere to anywhere.
_TRAVEL = 2.0
#: Sizes, in the unit of each embedding, of which the first is taken by which the median class gains
#: enough, or that times 2, 4, ... ``additive`` counts per root of the number of values, as a root
#: mean square.
SIZES: Mapping[str, float] = MappingProxyType(
    {
        "additive": 0.01,
        "sparse": 2.0,
        "warp": 0.15,
        "colour": 0.1,
        "generator": 0.02,
        "neurons": 0.5,
        "patch": 4.0,
    }
)
#: Enough: this share of what the median class is behind on the images of others.
ENOUGH = 0.3
#: So often a size is doubled at most.
DOUBLINGS = 4
#: Share of the images that a change turns which a report shows.
SHOWN = 0.9
#: Gamma shapes of a clean model's ratios, and of one with few classes: less than measured, because
#: other models differ more; see fixtures/results/margins.md.
SHAPES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "additive": (20.0, 10.0),
        "sparse": (15.0, 7.0),
        "warp": (20.0, 10.0),
        "colour": (20.0, 10.0),
        "generator": (20.0, 10.0),
        "neurons": (20.0, 10.0),
        "patch": (15.0, 7.0),
    }
)
PRIORS: Mapping[str, Priors] = {
    name: Priors(SpreadPrior(usual, PRIOR_WEIGHT), SpreadPrior(few, PRIOR_WEIGHT))
    for name, (usual, few) in SHAPES.items()
}


@dataclass(frozen=True)
class EmbeddingMargin:
    """The search with its settings.

    Attributes:
        name: registered name.
        embedding: a name in :data:`detectors.embeddings.EMBEDDINGS`.
        size: of the change, in the embedding's unit; 0 means the embedding's own.
        images: clean images at most, as many of each class; those of class t are left out.
        steps: of steepest ascent; their length falls linearly to 0.
        prior: as that of :class:`detectors.mm_bd.MmBd`.
    """

    name: str = "additive-margin"
    embedding: str = "additive"
    size: float = 0.0
    images: int = 13
    steps: int = 8
    prior: bool = True

    def __post_init__(self) -> None:
        if self.embedding not in EMBEDDINGS:
            known = ", ".join(EMBEDDINGS)
            raise ValueError(f"embedding is {self.embedding!r}; it must be one of: {known}")
        if not (math.isfinite(self.size) and self.size >= 0):
            raise ValueError(f"size is {self.size}; it must be finite and not negative")
        for setting, least in (("images", 2), ("steps", 1)):
            if getattr(self, setting) < least:
                raise ValueError(f"{setting} is {getattr(self, setting)}; at least {least}")

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Search the change that every class gains most by, and test the largest gain."""
        return cannot_compare(self.name, data) or with_cost(data, lambda: self._result(data))

    def _result(self, data: DetectorInput) -> DetectorResult:
        """The result but for its cost."""
        batch = BatchSize(images_per_batch(data.classifier))
        images = CleanImages(data, self.images, batch)
        try:
            embedding = EMBEDDINGS[self.embedding].fit(
                images.pixels, data.generator, data.classifier
            )
        except FeaturesUnavailable as unavailable:
            return without_test(self.name, str(unavailable), settings_of(self))
        search = _Search(data, images, embedding, self.steps, batch)
        size, gains, flips = self._gains(search)
        ratios = in_those_of_the_median(gains.double().cpu().numpy())
        test = compare(ratios, PRIORS[self.embedding] if self.prior else None)
        shown = {t: search.shown(t, size) for t in images.targets_of(test)}
        turned = zip(images.compared.tolist(), flips.tolist(), strict=True)
        shares = np.array([shown[t][1] if t in shown else share for t, share in turned])
        gained = Gained(ratios, shares)
        tested = without_what_turns_none(test, gained, "change")
        return result_of(
            self.name,
            images,
            gained,
            tested,
            self.steps,
            unit="times what the median class gains; larger is more suspicious",
            patterns={t: one[0] for t, one in shown.items()} if embedding.in_images else {},
            settings=settings_of(self) | {"size": size},
            stamp=embedding.apply if embedding.in_images else None,
        )

    def _gains(self, search: _Search) -> tuple[float, Tensor, Tensor]:
        """The size, and what :meth:`_Search.gains` finds with it ``[c]``."""
        size, doublings = self.size, 0
        if not size:
            size, doublings = SIZES[self.embedding], DOUBLINGS
            if self.embedding == "additive":
                size *= math.sqrt(math.prod(search.classifier.input_shape))
        gains, flips = search.gains(size)
        enough = ENOUGH * search.images.behind
        while doublings and (gained := float(gains.median())) < enough:
            # Gains grow at least in proportion to the size: what this makes certain is skipped.
            missing = math.log2(enough / gained) if gained > 0 else doublings
            more = min(max(1, math.floor(missing)), doublings)
            size, doublings = size * 2**more, doublings - more
            gains, flips = search.gains(size)
        return size, gains, flips


class _Search:
    """Ascents of margins.

    Args:
        steps: see :class:`EmbeddingMargin`.
    """

    def __init__(
        self,
        data: DetectorInput,
        images: CleanImages,
        embedding: Embedding,
        steps: int,
        batch: BatchSize,
    ) -> None:
        self.classifier, self.images, self.embedding = data.classifier, images, embedding
        self.steps, self.batch = steps, batch
        self._ask = embedding.ask(data.classifier, images.pixels)
        self._progress, self._rounds = data.progress, 0.0

    def gains(self, size: float) -> tuple[Tensor, Tensor]:
        """By how much the margins of the classes that are compared gain by changes of at most this
        size, as the mean over the images of other classes ``[c]``, and the share of these that are
        then taken for them ``[c]``."""
        parts = self.images.compared.split(max(1, self.batch.images // len(self.images.pixels)))
        found = [self._ascended(part, size, 1 / len(parts))[1:] for part in parts]
        gains, flips = (torch.cat(parts) for parts in zip(*found, strict=True))
        return gains, flips

    def shown(self, target: int, size: float) -> tuple[Tensor, float]:
        """What a report shows of a class: the change of this size, or of twice, four times, ...
        that size, that turns :data:`SHOWN` of the images, and the share that it turns.

        Where none does, the one that turns most.
        """
        alone = self.images.labels.new_tensor([target])
        best, most = self._pattern(alone, size)
        for doublings in range(1, DOUBLINGS + 1):
            if most >= SHOWN:
                break
            theta, flips = self._pattern(alone, size * 2**doublings)
            best, most = (theta, flips) if flips > most else (best, most)
        return best.cpu(), most

    def _pattern(self, alone: Tensor, size: float) -> tuple[Tensor, float]:
        theta, _, flips = self._ascended(alone, size, 1 / len(self.images.compared))
        return theta[0], float(flips)

    def _ascended(
        self, targets: Tensor, size: float, share: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The changes ``[R, *]`` that classes, a share of them all, gain most by, and what they
        gain and turn as in :meth:`gains`."""
        theta = self.embedding.init(len(targets), self.classifier.input_shape)
        theta = theta.to(self.images.pixels)
        best, most = theta.clone(), theta.new_full((len(targets),), -torch.inf)
        flips, others = torch.zeros_like(most), self.images.others.T[targets]
        for step in range(self.steps + 1):
            found, gradient = self._margins(theta, targets, others, step < self.steps)
            self._rounds += share / (self.steps + 1)
            self._progress(self._rounds / (1 + self._rounds))  # how many there will be is not known
            gain = mean_where(found - self.images.margins.T[targets], others, 1)
            more = ~(gain <= most)  # what is no number is told of
            best[more], most[more] = theta[more], gain[more]
            flips[more] = mean_where((found > 0).float(), others, 1)[more]
            length = _TRAVEL * size * 2 / (self.steps + 1) * (1 - step / self.steps)
            theta = self.embedding.step(theta, gradient, torch.full_like(most, length))
            theta = theta * broadcastable((size / self.embedding.size(theta)).clamp(max=1), theta)
        return best, most, flips

    def _margins(
        self, theta: Tensor, targets: Tensor, others: Tensor, differentiated: bool
    ) -> tuple[Tensor, Tensor]:
        """The margins of the rows' classes for the images with their patterns ``[R, m]``, 0 for
        images that a row is not of, and the gradient of each row's sum ``[R, *]``."""

        def work() -> tuple[Tensor, Tensor]:
            found, gradient = theta.new_zeros(others.shape), torch.zeros_like(theta)
            for row, image in (p.unbind(1) for p in others.nonzero().split(self.batch.images)):
                leaf = theta.clone().requires_grad_(differentiated)
                with torch.set_grad_enabled(differentiated):
                    margin = margins(self._ask(leaf, row, image, False), targets[row])
                found[row, image] = margin.detach()
                if differentiated:
                    gradient += torch.autograd.grad(margin.sum(), leaf)[0]
            return found, gradient

        return self.batch.within_memory(work)
