"""A classifier with shifts in the outputs of its inner layers, whatever it is made of.

The layers are found and shifted where torch dispatches their operators (``__torch_dispatch__``), so
that modules, imported graphs and scripts are all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode

from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize
from modelaudit.watch import CONVOLUTIONS, FeaturesUnavailable, Watch

_PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
#: Images that the spreads are measured on, and how many at once.
_MOST_IMAGES, _AT_ONCE = 64, 8
#: Outputs that differ from image to image by less than this share of their size are constants.
_CONSTANT = 1e-5
#: What counts as no change, as a share of a change that is one. (Rounding depends on the batch.)
_TOLERANCE = 1e-2


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


class Shifted:
    """A classifier with shifts in the outputs of some of its layers.

    A shift is one number for a channel, the same at all its places, in units of the layer's
    ``spread``.

    Args:
        layers: all, in their order; see :func:`inner_layers`. Those with a spread are shifted, D
            channels together.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[Layer]) -> None:
        self._classifier = classifier
        self._layers = tuple(layers)
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
        shifting = _Shifting(len(x), self._layers, by_place)
        if torch.is_grad_enabled():
            x = x.detach().requires_grad_()  # parameters are frozen
        with _layers_visible(), shifting:
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
        if not _is_layer(func, result):
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
            raise FeaturesUnavailable(_OTHERS)
        return self._edges


_OTHERS = "the model does not run the same layers for every batch"


def _is_layer(func: Any, result: Any) -> bool:
    return func in _PRODUCTS or (func in CONVOLUTIONS and result.dim() > 2)


@contextmanager
def _layers_visible() -> Iterator[None]:
    """Without the fused kernels of transformers, which torch takes where no gradient is needed."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@torch.no_grad()
def inner_layers(classifier: Classifier, pixels: Tensor) -> tuple[Layer, ...]:
    """All layers of a classifier, in their order, with the spreads of the inner ones.

    Not shifted (spread 0) are those whose outputs are the same for all images, those that the
    logits do not depend on, those that make the logits, and those that a shift of one image's part
    reaches other images through, because their first axis is not that of the images.

    Args:
        pixels: at least two clean images ``[n, C, H, W]`` in [0, 1].

    Raises:
        FeaturesUnavailable: there is no inner layer, or there are fewer than two images.
    """
    if len(pixels) < 2:
        raise FeaturesUnavailable("at least two images are needed to find the layers")
    few = pixels[:: -(-len(pixels) // _MOST_IMAGES)].to(classifier.device)
    batch = BatchSize(_AT_ONCE)
    layers = batch.within_memory(lambda: _measured(classifier, few, batch.images))
    two = few[:2]
    layers = _of_use(classifier, two, layers)
    places = [place for place, layer in enumerate(layers) if layer.spread]
    if places and not _independent(Shifted(classifier, layers), two):
        alone = {place: Shifted(classifier, _only(layers, place)) for place in places}
        places = [place for place in places if _independent(alone[place], two)]
    making = {
        place
        for place in places
        if layers[place].channels == classifier.num_classes
        and _makes_logits(Shifted(classifier, _only(layers, place)), two)
    }
    places = [place for place in places if place not in making]
    if not places:
        raise FeaturesUnavailable("the model shows no inner layer, a convolution or a product")
    return _only(layers, *places)


def _only(layers: Sequence[Layer], *places: int) -> tuple[Layer, ...]:
    """The layers, with a spread for those alone."""
    return tuple(
        layer if place in places else replace(layer, spread=0.0)
        for place, layer in enumerate(layers)
    )


def _measured(classifier: Classifier, images: Tensor, at_once: int) -> tuple[Layer, ...]:
    """All layers with their spreads over images."""
    seen = _Spreads()
    # Never a single image, for which torch may run other operators.
    for part in images.tensor_split(max(1, len(images) // max(2, at_once))):
        seen.start(len(part))
        with _layers_visible(), Watch(seen):
            classifier(part)
    return seen.layers()


class _Spreads:
    """Collects first and second moments of the layers' outputs, batch by batch."""

    def __init__(self) -> None:
        self._moments: list[list[Tensor]] = []  # of every layer: [number, sums, sums of squares]
        self._shapes: list[tuple[int, int]] = []  # channels, rows of an image (0 if not whole)
        self._images = self._place = 0
        self._misfit = False

    def start(self, images: int) -> None:
        """The next batch, of so many images."""
        self._misfit |= self._place != len(self._shapes)
        self._images, self._place = images, 0

    def __call__(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        if not _is_layer(func, result):
            return
        rows, rest = divmod(len(result), self._images)
        shape = (result.shape[1], 0 if rest else rows)
        others = [axis for axis in range(result.dim()) if axis != 1]
        values = result.float()
        number = values.new_tensor(values.numel() / max(1, values.shape[1]))
        moments = [number, values.sum(others), (values * values).sum(others)]
        if self._place == len(self._shapes):
            self._shapes.append(shape)
            self._moments.append([one.double() for one in moments])
        elif self._shapes[self._place] != shape:
            self._misfit = True
        else:
            known = self._moments[self._place]
            self._moments[self._place] = [a + b for a, b in zip(known, moments, strict=True)]
        self._place += 1

    def layers(self) -> tuple[Layer, ...]:
        """All of them.

        Raises:
            FeaturesUnavailable: not the same ran for every batch.
        """
        self.start(0)
        if self._misfit:
            raise FeaturesUnavailable(_OTHERS)
        found = []
        for (channels, rows), (number, total, squares) in zip(
            self._shapes, self._moments, strict=True
        ):
            variance = (squares - total * total / number) / (number - 1).clamp_min(1)
            spread = float(variance.clamp_min(0).mean().sqrt())
            size = float((squares / number).mean().sqrt())
            useful = rows > 0 and spread > _CONSTANT * size
            found.append(Layer(channels, rows, spread if useful else 0.0))
        return tuple(found)


def _of_use(classifier: Classifier, two: Tensor, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers, with spreads only for those that gradients of the logits reach."""
    shifted = [place for place, layer in enumerate(layers) if layer.spread]
    if not shifted:
        return layers
    channels = sum(layers[place].channels for place in shifted)
    with torch.enable_grad():
        outcome = Shifted(classifier, layers).run(two, torch.zeros(2, channels).to(two))
    if not outcome.logits.requires_grad or not any(outcome.edges):
        return _only(layers)
    draw = torch.randn(outcome.logits.shape, generator=torch.Generator().manual_seed(0))
    found = outcome.gradients(draw.to(two.device))
    return _only(
        layers,
        *(p for p, g in zip(shifted, found, strict=True) if g is not None and bool(g.any())),
    )


def _shifted_logits(shifted: Shifted, two: Tensor, sizes: Sequence[float]) -> list[Tensor]:
    """Logits, less their mean, with the first of two images shifted by multiples of random shifts.

    The same shift for all channels would be taken away by a normalisation of the layer.
    """
    channels = sum(layer.channels for layer in shifted._layers if layer.spread)
    shifts = torch.zeros(2, channels)
    shifts[0] = torch.randn(channels, generator=torch.Generator().manual_seed(0))
    found = [shifted(two, size * shifts.to(two.device)) for size in sizes]
    return [logits - logits.mean(1, keepdim=True) for logits in found]


def _independent(shifted: Shifted, two: Tensor) -> bool:
    """Whether shifts of the first of two images change its logits, and not those of the other."""
    try:
        before, after = _shifted_logits(shifted, two, (0.0, 1.0))
    except FeaturesUnavailable:
        return False
    changes = (after - before).abs().amax(1)
    return bool(changes[1] <= _TOLERANCE * changes[0])


def _makes_logits(shifted: Shifted, two: Tensor) -> bool:
    """Whether the logits are an affine function of the layer's output."""
    back, none, forth = (logits[0] for logits in _shifted_logits(shifted, two, (-4.0, 0.0, 4.0)))
    return bool((forth + back - 2 * none).abs().max() <= _TOLERANCE * (forth - back).abs().max())
