"""What the last layer of a classifier is given, whatever the classifier is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelaudit.classifier import Classifier
from modelaudit.watch import CONVOLUTIONS, FeaturesUnavailable, Watch

_ATEN = torch.ops.aten
#: Largest difference between the logits and what the head makes of the activations, as a share of
#: the logits' spread over classes: TF32 products on a GPU differ by about 1e-3.
_TOLERANCE = 1e-2
#: Pixel values per forward pass without gradients: 256 images of 3x32x32, 26 of 3x224x224.
_VALUES_PER_BATCH, _MOST_PER_BATCH = 4_000_000, 256


def batch_size(pixels: Tensor) -> int:
    """How many images like ``pixels`` ``[n, C, H, W]`` fit into a forward pass."""
    return min(_MOST_PER_BATCH, max(2, _VALUES_PER_BATCH // max(1, pixels[:1].numel())))


@dataclass(frozen=True)
class LinearHead:
    """A last layer, ``activations @ weight + bias``: the logits up to a constant per image.

    Attributes:
        weight: ``[D, K]``.
        bias: ``[K]``.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, activations: Tensor) -> Tensor:
        """``[n, D]`` -> ``[n, K]``."""
        return activations @ self.weight + self.bias


@dataclass(frozen=True)
class Penultimate:
    """Images as the last layer sees them, on the CPU.

    Attributes:
        activations: ``[n, D]``.
        logits: ``[n, K]``, as the classifier returns them.
        head: the last layer.
    """

    activations: Tensor
    logits: Tensor
    head: LinearHead


@torch.no_grad()
def penultimate(classifier: Classifier, pixels: Tensor, batch: int | None = None) -> Penultimate:
    """Penultimate activations of at least two images ``[n, C, H, W]`` in [0, 1].

    They are what the last linear layer (or 1x1 convolution, averaged over the map) is given. That
    it is the last one is verified: the logits must be a linear function of them.

    Args:
        batch: images per forward pass, at least 2.

    Raises:
        FeaturesUnavailable: no layer of the model is like that.
    """
    place, head = -1, None
    activations, logits = [], []
    for chunk in pixels.split(batch or batch_size(pixels)):
        products, outputs = _watched_products(classifier, chunk)
        if head is None:
            place, head = _last_layer(products, outputs)
        given = products[place][0] if -place <= len(products) else outputs[:0]
        if not _makes(head, given, outputs):
            raise FeaturesUnavailable(
                "the last layer that was found does not explain the logits of all images"
            )
        activations.append(given)
        logits.append(outputs)
    if head is None:
        raise FeaturesUnavailable("there are no images")
    return Penultimate(torch.cat(activations), torch.cat(logits), head)


# Operands and matrices ``[D, K]`` of products that may be a last layer, in their order.
_Products = list[tuple[Tensor, Tensor]]


def _watched_products(classifier: Classifier, pixels: Tensor) -> tuple[_Products, Tensor]:
    products: _Products = []

    def see(func: Any, args: tuple[Any, ...], result: Any) -> None:
        product = _product(func, args)
        if product is None or product[0].device.type == "meta":
            return
        x, weight = product
        if len(x) == len(pixels) and weight.shape[1] == classifier.num_classes:
            products.append((x.float().cpu(), weight.float().cpu()))

    with Watch(see):
        logits = classifier(pixels.to(classifier.device))
    return products, logits.cpu()


def _product(func: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    """Operand ``[B, D]`` and matrix ``[D, K]``, where the operator is a product of that kind."""
    if func is _ATEN.addmm.default:
        return args[1], args[2]
    if func is _ATEN.mm.default:
        return args[0], args[1]
    if func in CONVOLUTIONS and args[0].dim() == 4:
        x, weight = args[0], args[1]
        if weight.shape[2:] == (1, 1) and weight.shape[1] == x.shape[1]:
            return x.mean((2, 3)), weight[:, :, 0, 0].T
    return None


def _last_layer(products: _Products, logits: Tensor) -> tuple[int, LinearHead]:
    """The place of the last layer, counted from the end, and the layer.

    Raises:
        FeaturesUnavailable: none of them makes the logits.
    """
    if len(logits) < 2:  # any layer explains a single image
        raise FeaturesUnavailable("at least two images are needed to find the last layer")
    for place in range(-1, -len(products) - 1, -1):
        x, weight = products[place]
        rest = _centred(logits) - _centred(x @ weight)
        head = LinearHead(weight, rest.mean(0))
        if _makes(head, x, logits):
            return place, head
    raise FeaturesUnavailable(
        "the logits are no linear function of what a last layer is given, or the file works with a "
        "fixed batch only"
    )


def _makes(head: LinearHead, activations: Tensor, logits: Tensor) -> bool:
    """Whether the head turns these activations into these logits, up to a constant per image."""
    if len(activations) != len(logits) or activations.shape[1] != len(head.weight):
        return False
    expected = _centred(logits)
    error = (_centred(head(activations)) - expected).abs().max()
    return bool(error <= _TOLERANCE * expected.abs().max())


def _centred(logits: Tensor) -> Tensor:
    """Without the constant per image, which no softmax sees."""
    return logits - logits.mean(1, keepdim=True)
