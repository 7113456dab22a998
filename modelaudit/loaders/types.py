"""What a loader returns and what the user may tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class LoadOptions:
    """What the user says about a model file; every field is optional.

    Attributes:
        arch: torchvision classification model name, or ``package.module:factory``; only for
            weights without a graph.
        num_classes: number of outputs K; only for weights without a graph.
    """

    arch: str | None = None
    num_classes: int | None = None


@dataclass(frozen=True)
class StatedFacts:
    """What one place says about a model's classes and its input; what it leaves open is ``None``.

    Attributes:
        source: the place, for reports, e.g. ``preprocessor_config.json``.
        labels: names of the outputs 0 .. K-1.
        mean, std: per channel, in [0, 1] units, length 1 or C; ``(0.0,)`` and ``(1.0,)`` where the
            place says that nothing is normalised.
        input_range, channel_order, layout: see :class:`modelaudit.classifier.Preprocessing`.
        image_size: ``(H, W)`` in pixels.
    """

    source: str
    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: Literal["0-1", "0-255"] | None = None
    channel_order: Literal["RGB", "BGR"] | None = None
    layout: Layout | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model file turned into a differentiable module.

    Attributes:
        module: float32 tensor in the file's own layout and value range -> raw outputs ``[B, K]``;
            in eval mode, parameters frozen.
        format: ``onnx``, ``torchscript``, ``pt2``, ``huggingface``, ``safetensors``,
            ``state-dict`` or ``module`` (a torch module in memory).
        input_shape: shape of one input without the batch dimension, as the file states it; an
            unknown extent is ``None``; the whole is ``None`` when the file does not say.
        layout: the layout that the file's graph expects; ``None`` if the file does not say.
        num_classes: number of outputs K if the file states it.
        logits_module: the same network without its final softmax, where the graph shows one;
            its logits keep gradients that a saturated softmax loses.
        reference: an independent implementation (ONNX Runtime) of the same file: float32 array in
            the file's layout -> raw outputs; ``None`` where there is none.
        reference_tolerance: largest difference from the reference, relative to the largest output,
            that still counts as the same network. float32 in another order of summation differs by
            about 1e-6 per layer.
        stated: what the file and the files that belong to it say about classes and input, the
            stronger first.
        notes: sentences for the report.
        details: facts for ``modelaudit inspect`` (producer, opset, operators, parameters ...).
        sha256: hex digest of a model that is in memory; ``None`` for a file, which has its own.
    """

    module: nn.Module
    format: str
    input_shape: tuple[int | None, ...] | None = None
    layout: Layout | None = None
    num_classes: int | None = None
    logits_module: nn.Module | None = None
    reference: Callable[[np.ndarray], np.ndarray] | None = None
    reference_tolerance: float = 1e-3
    stated: tuple[StatedFacts, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
