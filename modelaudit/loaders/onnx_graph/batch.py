"""Any batch size, also for graphs that were exported for one."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.free_batch import free_batch
from modelaudit.loaders.onnx_graph.graph import OnnxGraph

# Sums in another order may change float32 scores by this much of their variation between images,
# plus this much of their size. Mixed-up images change them by about their variation.
_OF_VARIATION, _OF_SIZE = 1e-2, 1e-5
# Where values are rounded to 8 bits on the way, such a change may put some on the next step.
_OF_QUANTISED_VARIATION = 0.3

Adapter = Callable[[OnnxGraph], nn.Module]


class Vectorized(nn.Module):
    """Runs a graph for one image on a batch with :func:`torch.vmap`."""

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...]`` -> ``[B, K]``."""
        return torch.vmap(lambda image: self.graph(image[None])[0])(x)


class Chunked(nn.Module):
    """Runs a graph for ``size`` images on a batch, chunk by chunk; the last one is padded."""

    def __init__(self, graph: OnnxGraph, size: int) -> None:
        super().__init__()
        self.graph = graph
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...]`` -> ``[B, K]``."""
        missing = -len(x) % self.size
        padded = F.pad(x, [0] * (2 * x.dim() - 1) + [missing]) if missing else x
        return torch.cat([self.graph(chunk) for chunk in padded.split(self.size)])[: len(x)]


def any_batch(
    graph: OnnxGraph, shape: tuple[int, ...], batch: int | None
) -> tuple[OnnxGraph, Adapter, str | None]:
    """Find a way to run the graph with any batch size, and verify it.

    Args:
        graph: one image batch -> scores ``[B, K]``.
        shape: of one image, for the verification.
        batch: the batch size that the file states; None if it states none.

    Returns:
        The graph to run, what to wrap it in, and a note where that is slow.

    Raises:
        ModelFileError: the graph runs with no batch size.
    """
    size = batch or 1
    images = torch.rand(3 * size, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.cat([_scores(graph, part) for part in images.split(size)])
    agrees = functools.partial(_agrees, images=images, expected=expected, quantised=graph.quantised)
    if agrees(graph):
        return graph, _as_is, None
    for last in (False, True):
        freed = _freed(graph, images, size, last)
        if freed is not None and agrees(freed):
            return freed, _as_is, None
    reason = f"The graph only works with a batch of {size}"
    if size == 1 and agrees(Vectorized(graph)):
        return graph, Vectorized, f"{reason}; it runs vectorized over images, which is slower."
    slow = f"{reason}; it runs {size} at a time, which is slow. Export with a dynamic batch."
    return graph, lambda chosen: Chunked(chosen, size), slow


def _freed(graph: OnnxGraph, images: Tensor, batch: int, last: bool) -> OnnxGraph | None:
    try:
        with torch.no_grad():
            return free_batch(graph, images, batch, last)
    except (ModelFileError, RuntimeError, ValueError):
        return None


def _agrees(module: nn.Module, images: Tensor, expected: Tensor, quantised: bool = False) -> bool:
    """Whether the module returns the expected scores for the whole batch."""
    try:
        with torch.no_grad():
            found = module(images)
    except (ModelFileError, RuntimeError, ValueError):
        return False
    # Scores that are not finite must be equal; they say nothing about the size of the others.
    finite = expected.where(expected.isfinite(), torch.nan)
    variation = (finite - finite.nanmean(0)).abs().nan_to_num(0).max()
    share = _OF_QUANTISED_VARIATION if quantised else _OF_VARIATION
    limit = float(share * variation + _OF_SIZE * finite.abs().nan_to_num(0).max())
    return found.shape == expected.shape and bool(
        torch.isclose(found, expected, rtol=0, atol=limit, equal_nan=True).all()
    )


def _as_is(graph: OnnxGraph) -> nn.Module:
    return graph


def _scores(graph: OnnxGraph, images: Tensor) -> Tensor:
    scores = graph(images)
    if scores.dim() != 2 or len(scores) != len(images):
        raise ModelFileError(
            f"expected scores of shape [{len(images)}, K] for {len(images)} images, found "
            f"{list(scores.shape)}; export the classifier alone, with the batch first"
        )
    return scores
