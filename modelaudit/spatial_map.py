"""The last map of places that a classifier computes, for pictures of where it looks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modelaudit.classifier import Classifier
from modelaudit.watch import CONVOLUTIONS, FeaturesUnavailable, Watch


def last_spatial_map(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``[n, K]`` and the last map ``[n, M, h, w]`` of places, connected by gradients.

    The last result of a convolution, or of what follows without leaving its layout (activation,
    normalisation, pooling, sums, concatenation), with more than one place.

    Raises:
        FeaturesUnavailable: the model has no convolution that gradients pass.
    """
    maps = _Maps(len(pixels))
    with torch.enable_grad(), Watch(maps):
        logits = classifier(pixels.to(classifier.device).detach().requires_grad_())
    found = next((value for value in reversed(maps.found) if value.requires_grad), None)
    if found is None:
        raise FeaturesUnavailable("the model has no convolution, so there is no map of places")
    return logits, found


class _Maps:
    """Collects the maps of places among the results."""

    def __init__(self, batch: int) -> None:
        self.found: list[Tensor] = []
        self._batch = batch
        self._known: set[int] = set()  # ids of tensors that ``found`` or the graph keeps alive

    def __call__(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        value = result[0] if isinstance(result, tuple | list) and result else result
        if not isinstance(value, Tensor) or value.dim() != 4 or func.is_view:
            return
        if func not in CONVOLUTIONS and not self._continues(args):
            return
        if len(value) == self._batch and value.shape[2] * value.shape[3] > 1:
            self.found.append(value)
            self._known.add(id(value))

    def _continues(self, args: tuple[Any, ...]) -> bool:
        """Whether an operand is a map itself."""
        operands = [x for a in args for x in (a if isinstance(a, tuple | list) else (a,))]
        return any(id(x) in self._known for x in operands if isinstance(x, Tensor))
