"""A classifier with shifts in the outputs of its inner layers, whatever it is made of.

The layers are shifted where torch dispatches their operators (``__torch_dispatch__``), so
that modules, imported graphs and scripts are all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode

from modelaudit.classifier import Classifier
from modelaudit.watch import CONVOLUTIONS, FeaturesUnavailable

_PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
#: Why shifts are not possible.
OTHERS = "the model does not run the same layers for every batch"


@dataclass(frozen=True)
class Layer:
    """A convolution or a matrix product of the forward pass.

    Attributes:
        channels: of its output ``[B rows, channels, *places]``.
        rows: of each image.
        spread: root mean square, over the channels, of their standard deviations over clean images
            and places; 0 for a layer that is not shifted.
    """

    channels: int
    rows: int
    spread: float


def channels_of(layers: Sequence[Layer]) -> int:
    """D, the channels of all layers that are shifted."""
    return sum(layer.channels for layer in layers if layer.spread)


class Shifted:
    """A classifier with shifts in the outputs of some of its layers.

    A shift is one number for a channel, the same at all its places, in units of the layer's
    ``spread``.

    Attributes:
        layers: all, in their order; see
            :func:`modelaudit.inner_layers.inner_layers`. Those with a spread are shifted, D
            channels together.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self._classifier = classifier
        self._shifted = [(place, one) for place, one in enumerate(layers) if one.spread]

    def __call__(self, x: Tensor, shifts: Tensor, bfloat16: bool = False) -> Tensor:
        """Logits ``[B, K]`` of pixels ``[B, C, H, W]``, each with its shifts ``[B, D]``.

        Gradients flow to the shifts, not to the pixels.

        Args:
            bfloat16: as in :meth:`Classifier.__call__`.

        Raises:
            FeaturesUnavailable: the model did not run the layers that it ran before.
        """
        if len(x) == 1:  # torch may run other operators for a single image
            return self(torch.cat([x, x]), torch.cat([shifts, shifts]), bfloat16)[:1]
        if not (torch.is_grad_enabled() and shifts.requires_grad):
            return self.run(x, shifts, bfloat16).logits
        logits: Tensor = _WithGradients.apply(shifts, lambda s: self.run(x, s, bfloat16))
        return logits

    def run(self, x: Tensor, shifts: Tensor, bfloat16: bool = False) -> Outcome:
        """The same, with what is needed for gradients with respect to the shifted outputs."""
        widths = [layer.channels for _, layer in self._shifted]
        parts = zip(self._shifted, shifts.detach().split(widths, 1), strict=True)
        by_place = {place: layer.spread * part for (place, layer), part in parts}
        shifting = _Shifting(len(x), self.layers, by_place)
        if torch.is_grad_enabled():
            x = x.detach().requires_grad_()  # parameters are frozen
        with layers_visible(), shifting:
            logits = self._classifier(x, bfloat16)
        return Outcome(logits, shifting.edges(), [layer for _, layer in self._shifted])


@dataclass(frozen=True)
class Outcome:
    """A forward pass.

    Attributes:
        logits: ``[B, K]``.
        edges: where the gradients of the outputs of these ``layers`` arrive; ``None`` for one that
            no gradients pass.
    """

    logits: Tensor
    edges: Sequence[GradientEdge | None]
    layers: Sequence[Layer]

    def gradients(self, of_logits: Tensor) -> list[Tensor | None]:
        """With respect to the layers' outputs; ``None`` where the logits do not depend on them."""
        known = [edge for edge in self.edges if edge is not None]
        found = torch.autograd.grad(self.logits, known, of_logits, allow_unused=True)
        rest = iter(found)
        return [None if edge is None else next(rest) for edge in self.edges]


class _WithGradients(torch.autograd.Function):
    """Takes the gradients with respect to the shifts from those that arrive at the outputs.

    Autograd does not see the shifts, because they are added below it. But an output's derivative by
    its shift is 1.
    """

    @staticmethod
    def forward(ctx: Any, shifts: Tensor, run: Callable[[Tensor], Outcome]) -> Tensor:
        with torch.enable_grad():
            ctx.outcome = run(shifts)
        return ctx.outcome.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        outcome: Outcome = ctx.outcome
        images = len(outcome.logits)
        of_channels = []
        for layer, arrived in zip(outcome.layers, outcome.gradients(gradients[0]), strict=True):
            if arrived is None:
                of_channels.append(gradients[0].new_zeros(images, layer.channels))
                continue
            places = arrived.float().reshape(images, layer.rows, layer.channels, -1)
            of_channels.append(layer.spread * places.sum((1, 3)))
        return torch.cat(of_channels, 1), None


class _Shifting(TorchDispatchMode):
    """Adds shifts to the outputs of layers.

    Args:
        images: in the batch, B.
        layers: all that will run, in their order.
        shifts: ``[B, channels]`` by the place of the layer.
    """

    def __init__(self, images: int, layers: Sequence[Layer], shifts: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._images = images
        self._layers = layers
        self._shifts = shifts
        self._place, self._misfit = 0, False
        self._edges: list[GradientEdge | None] = []
        self._last: Tensor | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._note_edge()
        result = func(*args, **(kwargs or {}))
        if not is_layer(func, result):
            return result
        place, self._place = self._place, self._place + 1
        shift = self._shifts.get(place)
        if shift is None:
            return result
        rows = self._layers[place].rows
        if result.shape[:2] != (self._images * rows, shift.shape[1]):
            self._misfit = True  # an error here would be the model's
            return result
        shift = shift.repeat_interleave(rows, 0) if rows > 1 else shift
        places = [1] * (result.dim() - 2)
        self._last = result + shift.to(result.dtype).view(*shift.shape, *places)
        return self._last

    def _note_edge(self) -> None:
        """Of the last output: autograd knows it now, and nothing has been done to it yet."""
        if self._last is not None:
            known = self._last.requires_grad
            self._edges.append(get_gradient_edge(self._last) if known else None)
        self._last = None

    def edges(self) -> list[GradientEdge | None]:
        """Where the gradients of the shifted outputs arrive, in the order of their places.

        Raises:
            FeaturesUnavailable: other layers ran, or with other shapes.
        """
        self._note_edge()
        if self._misfit or self._place != len(self._layers):
            raise FeaturesUnavailable(OTHERS)
        return self._edges


def is_layer(func: Any, result: Any) -> bool:
    """Whether an operator with this result is a convolution or a product."""
    return func in _PRODUCTS or (func in CONVOLUTIONS and result.dim() > 2)


class _FastPath:
    """Torch's switch for the fused kernels of transformers: one for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = True

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._before = torch.backends.mha.get_fastpath_enabled()
            self._users += 1
            torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    torch.backends.mha.set_fastpath_enabled(self._before)


_FAST_PATH = _FastPath()


def layers_visible() -> AbstractContextManager[None]:
    """Without the fused kernels of transformers, which torch takes where no gradient is needed."""
    return _FAST_PATH.off()
