"""Any batch size, also for graphs that were exported for one."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelaudit.errors import ModelFileError
from modelaudit.loaders.batch import OF_QUANTISED_VARIATION, Chunked, Vectorized, agrees
from modelaudit.loaders.onnx_graph.free_batch import free_batch
from modelaudit.loaders.onnx_graph.graph import OnnxGraph

Adapter = Callable[[OnnxGraph], nn.Module]


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
    verified = functools.partial(agrees, images=images, expected=expected)
    if graph.quantised:
        verified = functools.partial(verified, share=OF_QUANTISED_VARIATION)
    if verified(graph):
        return graph, _as_is, None
    for last in (False, True):
        freed = _freed(graph, images, size, last)
        if freed is not None and verified(freed):
            return freed, _as_is, None
    reason = f"The graph only works with a batch of {size}"
    if size == 1 and verified(Vectorized(graph)):
        return graph, Vectorized, f"{reason}; it runs vectorized over images, which is slower."
    slow = f"{reason}; it runs {size} at a time, which is slow. Export with a dynamic batch."
    return graph, lambda chosen: Chunked(chosen, size), slow


def _freed(graph: OnnxGraph, images: Tensor, batch: int, last: bool) -> OnnxGraph | None:
    try:
        with torch.no_grad():
            return free_batch(graph, images, batch, last)
    except (ModelFileError, RuntimeError, ValueError):
        return None


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
