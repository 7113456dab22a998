"""All that the search knows of an embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor

from modelaudit.classifier import Classifier

#: ``stamp(theta, row, image)``: the images with these indices ``[b]``, each with the pattern of its
#: row ``[b]`` out of ``theta`` ``[R, *]``; ``[b, C, H, W]`` in [0, 1], differentiable in ``theta``.
Stamp = Callable[[Tensor, Tensor, Tensor], Tensor]
#: ``ask(theta, row, image, bfloat16)``: the logits ``[b, K]`` of these images with these patterns.
Ask = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


class Embedding(Protocol):
    """How a pattern θ is put into images, how large it is, and where it grows fastest.

    Patterns of several rows (one per putative target) are stacked: θ is ``[R, *]``. A row's pattern
    may be interpolated linearly between two values that the search has seen.

    Attributes:
        name: as in ``--set l-red.embedding=NAME``.
        unit: of the size, for reports.
        sees: which patterns it is for, in a few words.
        first_step: length of the first step of the fast schedule, in the unit of the size.
        in_images: whether the pattern is a change of the images, so that it can be shown.
        reaches_all: whether a pattern that is large enough leads to any class.
        clean_shape: Gamma shape of 1 / size over the targets of a typical clean model, for the
            prior of the test; measured by ``python -m fixtures.benchmark spread``.
    """

    name: str
    unit: str
    sees: str
    first_step: float
    clean_shape: float
    in_images: bool = True
    reaches_all: bool = True

    def fit(self, pixels: Tensor, generator: torch.Generator, classifier: Classifier) -> Self:
        """The embedding for clean images ``[n, C, H, W]`` and a model, where it depends on them.

        Raises:
            FeaturesUnavailable: it needs something of the model that this one does not show.
        """
        return self

    def state(self) -> tuple[Tensor, ...]:
        """What it was fitted to: the arguments that make this embedding of its class."""
        return ()

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``rows`` patterns that change nothing, for images ``(C, H, W)``."""
        ...

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] with one pattern each, ``[B, *]``; in [0, 1] again."""
        ...

    def bind(self, pixels: Tensor) -> Stamp:
        """:meth:`apply` for images ``[n, C, H, W]`` that get patterns again and again.

        An embedding may work out here, once, what depends on the images alone.
        """
        return lambda theta, row, image: self.apply(pixels[image], theta[row])

    def ask(self, classifier: Classifier, pixels: Tensor) -> Ask:
        """What the model says of images ``[n, C, H, W]`` with patterns, again and again."""
        stamp = self.bind(pixels)
        return lambda theta, row, image, bfloat16: classifier(stamp(theta, row, image), bfloat16)

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """Patterns ``[R, *]`` after one step of steepest ascent of length ``delta`` ``[R]``.

        Steepest in the geometry of ``size``: of all steps of that length, the one along which the
        objective with this gradient grows most.
        """
        ...

    def size(self, theta: Tensor) -> Tensor:
        """Size ``[R]`` of patterns ``[R, *]``, in ``unit``."""
        ...

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """A size beyond which a change of images ``(C, H, W)`` hides nothing any more."""
        ...
