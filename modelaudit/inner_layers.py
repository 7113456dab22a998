"""The inner layers of a classifier, whatever it is made of, and how far their outputs spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize
from modelaudit.shifted import (
    OTHERS,
    Layer,
    Shifted,
    channels_of,
    is_layer,
    layers_visible,
)
from modelaudit.watch import FeaturesUnavailable, Watch

#: Images that the spreads are measured on, and how many at once.
_MOST_IMAGES, _AT_ONCE = 64, 8
#: Outputs that differ from image to image by less than this share of their size are constants.
_CONSTANT = 1e-5
#: What counts as no change, as a share of a change that is one. (Rounding depends on the batch.)
_TOLERANCE = 1e-2


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
        with layers_visible(), Watch(seen):
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
        if not is_layer(func, result):
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
            raise FeaturesUnavailable(OTHERS)
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
    none = torch.zeros(2, channels_of(layers)).to(two)
    with torch.enable_grad():
        outcome = Shifted(classifier, layers).run(two, none)
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
    channels = channels_of(shifted.layers)
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
