"""The one object that detectors see: pixels in, logits out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, autocast, nn

from modelaudit.errors import blaming_the_model
from modelaudit.footprint import mean_tensor
from modelaudit.memory import BatchSize
from modelaudit.preprocessing import Preprocessing

OutputKind = Literal["logits", "probabilities", "log-probabilities", "sigmoid"]

# Probabilities are clamped here before the logarithm. float32 softmax underflows to exact zeros
# around 1e-45; anything below this is as good as impossible and must not turn into -inf.
_SMALLEST_PROBABILITY = 1e-30
# The distance of the largest float32 below 1: closer to 1 a sigmoid has no gradient any more.
_SMALLEST_REMAINDER = 2.0**-24


class Classifier:
    """A frozen image classifier with its preprocessing inside.

    Args:
        module: takes the preprocessed batch, returns ``[B, K]``; it is put in eval mode and its
            parameters are frozen.
        num_classes: number of outputs K.
        input_shape: ``(C, H, W)`` of the pixels that it is called with.
        preprocessing: applied to the pixels before ``module``.
        outputs: what ``module`` returns. Probabilities are turned into logits by taking the
            logarithm, which a following softmax undoes exactly, as log-probabilities are already;
            outputs of a sigmoid per class by its inverse.
        device: where the pixels and the module live.
        without_softmax: whether ``module`` is the model without a final softmax that its file has.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        num_classes: int,
        input_shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        outputs: OutputKind = "logits",
        device: torch.device | str = "cpu",
        without_softmax: bool = False,
    ) -> None:
        self.device = torch.device(device)
        if isinstance(module, nn.Module):
            module = module.to(self.device).eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        self.module = module
        self.num_classes = num_classes
        self.input_shape = input_shape
        self.preprocessing = preprocessing or Preprocessing()
        self.outputs = outputs
        self.without_softmax = without_softmax
        self.forwards = 0
        self.backwards = 0
        self._mean_tensor: float | None = None

    @property
    def values_per_tensor(self) -> float:
        """Values that the tensors made of an image have in the mean; batches are sized by them.

        They are measured once, with a few images that do not count as image-passes; where they
        cannot be, as many are assumed as the image has.
        """
        if self._mean_tensor is None:
            found = mean_tensor(self._raw, self.input_shape, self.device)
            self._mean_tensor = found or math.prod(self.input_shape)
        return self._mean_tensor

    @property
    def image_passes(self) -> float:
        """Cost so far: one image through one forward and one backward pass counts 1, a forward
        pass alone 1/2 (parameters are frozen, so a backward pass costs about as much)."""
        return (self.forwards + self.backwards) / 2

    def count(self, image_passes: float) -> None:
        """Add a cost that was paid before: by a scan that this one goes on with."""
        self.forwards += round(2 * image_passes)

    def __call__(self, x: Tensor, bfloat16: bool = False) -> Tensor:
        """Logits ``[B, K]``, float32, of float32 pixels ``[B, C, H, W]`` in [0, 1].

        Args:
            bfloat16: compute convolutions and products in it, where torch's autocast does: with
                about three digits, and about twice as fast on hardware for it.

        Raises:
            ModelFileError: the model does not accept them.
        """
        self.forwards += len(x)
        with autocast(self.device.type, torch.bfloat16) if bfloat16 else nullcontext():
            raw = self._raw(x)
        if raw.requires_grad:
            raw.register_hook(self._count_backward)
        return to_logits(raw.float(), self.outputs)

    def _raw(self, x: Tensor) -> Tensor:
        """The model's raw outputs; what goes wrong inside it is the model's fault, and typed."""
        x = self.preprocessing(x)
        if self.preprocessing.layout == "NCHW":
            # The order of the values in memory, not of the axes: convolutions are faster with it.
            x = x.contiguous(memory_format=torch.channels_last)
        advice = "Export it again, or to another format."
        with blaming_the_model(f"The model failed on a batch of {len(x)} images", advice):
            return self.module(x)

    def _count_backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)

    @torch.no_grad()
    def logits(self, x: Tensor, batch: BatchSize) -> Tensor:
        """Logits ``[n, K]`` of pixels ``[n, C, H, W]``, in batches and without gradients.

        Args:
            x: on any device; the logits are on the classifier's.
            batch: halved where memory runs out.
        """
        return batch.within_memory(
            lambda: torch.cat([self(chunk.to(self.device)) for chunk in x.split(batch.images)])
        )

    @torch.no_grad()
    def predict(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """Predicted class ``[B]`` (int64) of pixels ``[B, C, H, W]``."""
        batch = BatchSize(batch_size)
        parts = batch.within_memory(
            lambda: [self(chunk.to(self.device)).argmax(1).cpu() for chunk in x.split(batch.images)]
        )
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def to_logits(raw: Tensor, outputs: OutputKind) -> Tensor:
    """Raw outputs ``[B, K]`` as logits; finite, with finite gradients, for all in [0, 1].

    The logarithm where they are probabilities, ``log(p / (1 - p))`` where they are sigmoids.
    """
    if outputs == "probabilities":
        return raw.clamp_min(_SMALLEST_PROBABILITY).log()
    if outputs == "sigmoid":
        remainder = (1 - raw).clamp_min(_SMALLEST_REMAINDER)
        return raw.clamp_min(_SMALLEST_PROBABILITY).log() - remainder.log()
    return raw


def recognise_outputs(raw: Tensor, tolerance: float = 1e-3) -> OutputKind:
    """What raw outputs ``[B, K]`` are, judged by their range and their sums.

    Softmax outputs are in [0, 1] and sum to 1; log-softmax outputs are at most 0 and their
    exponentials sum to 1; outputs of a sigmoid per class are in [0, 1] and sum to anything.
    Everything else is logits.
    """
    raw = raw.detach().double()
    if bool((raw >= -tolerance).all()) and bool(((raw.sum(1) - 1).abs() < tolerance).all()):
        return "probabilities"
    if bool((raw <= tolerance).all()) and bool(((raw.exp().sum(1) - 1).abs() < tolerance).all()):
        return "log-probabilities"
    if bool(((raw >= 0) & (raw <= 1)).all()):
        return "sigmoid"
    return "logits"
