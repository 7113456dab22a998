"""Operators that read or write elements by index."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


def _wrap(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end."""
    return torch.where(indices < 0, indices + size, indices).long()


@op("Gather")
def gather(call: Call) -> Function:
    axis, shape = call.axis(0), call.shape()
    size, target = shape[axis], shape[:axis] + call.shape(1) + shape[axis + 1 :]
    call.sized(target)
    if not call.fixed(1):
        return lambda x, i: x.index_select(axis, _wrap(i, size).reshape(-1)).reshape(target)
    indices = _wrap(call.take(1), size)
    if indices.dim() == 0:
        return functools.partial(torch.select, dim=axis, index=int(indices))
    flat = indices.reshape(-1).to(call.device)
    if indices.dim() == 1:
        return lambda x: x.index_select(axis, flat)
    return lambda x: x.index_select(axis, flat).reshape(target)


@op("GatherElements", since=11)
def gather_elements(call: Call) -> Function:
    axis = call.axis(0)
    size = call.shape()[axis]
    return lambda x, indices: x.gather(axis, _wrap(indices, size))


def _index_tuple(indices: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The last axis of ``indices`` as a tuple for advanced indexing of the leading axes."""
    return tuple(_wrap(i, n) for i, n in zip(indices.unbind(-1), shape, strict=False))


@op("GatherND", since=11)
def gather_nd(call: Call) -> Function:
    batch, shape, index_shape = call.attribute("batch_dims", 0), call.shape(), call.shape(1)
    call.sized(index_shape[:-1] + shape[batch + index_shape[-1] :])
    if batch == 0:
        return lambda x, indices: x[_index_tuple(indices, shape)]
    target = index_shape[:-1] + shape[batch + index_shape[-1] :]

    def run(x: Tensor, indices: Tensor) -> Tensor:
        rows = zip(x.flatten(0, batch - 1), indices.flatten(0, batch - 1), strict=True)
        picked = [row[_index_tuple(index, shape[batch:])] for row, index in rows]
        return torch.stack(picked).reshape(target)

    return run


_SCATTER_REDUCTION = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("Scatter", since=9)
@op("ScatterElements", since=11)
def scatter_elements(call: Call) -> Function:
    axis, reduction = call.axis(0), call.attribute("reduction", "none")
    size = call.shape()[axis]
    if reduction == "none":
        return lambda x, indices, updates: x.scatter(axis, _wrap(indices, size), updates)
    reduce = _SCATTER_REDUCTION[reduction]
    return lambda x, indices, updates: x.scatter_reduce(
        axis, _wrap(indices, size), updates, reduce=reduce
    )


@op("ScatterND", since=11)
def scatter_nd(call: Call) -> Function:
    reduction, shape = call.attribute("reduction", "none"), call.shape()
    if reduction in ("none", "add"):
        accumulate = reduction == "add"
        return lambda x, indices, updates: x.index_put(
            _index_tuple(indices, shape), updates, accumulate=accumulate
        )
    reduce = _SCATTER_REDUCTION[reduction]

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        positions = torch.arange(x.numel(), device=x.device).reshape(shape)
        flat = positions[_index_tuple(indices, shape)].reshape(-1)
        return x.flatten().scatter_reduce(0, flat, updates.flatten(), reduce).reshape(shape)

    return run


@op("NonZero", since=9)
def non_zero(call: Call) -> Function:
    call.take(0)  # the shape of the result depends on the values
    found = torch.nonzero(call.operand(0)).t()
    return lambda: found


@op("Compress", since=9)
def compress(call: Call) -> Function:
    condition = torch.nonzero(call.take(1)).reshape(-1)
    if call.attribute("axis") is None:
        return lambda x: x.flatten().index_select(0, condition.to(x.device))
    axis = call.axis()
    return lambda x: x.index_select(axis, condition.to(x.device))


@op("TensorScatter", since=24)
def tensor_scatter(call: Call) -> Function:
    """Write updates into a cache, from a position per batch element on."""
    axis, size = call.axis(-2), call.shape()[call.axis(-2)]
    circular = call.attribute("mode", "linear") == "circular"
    shape, count = call.shape(1), call.shape(1)[axis]

    def run(cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
        steps = torch.arange(count, device=cache.device)
        first = steps.new_zeros(len(cache)) if starts is None else starts
        rows = first[:, None] + steps
        rows = rows % size if circular else rows
        view = [shape[0] if i == 0 else count if i == axis else 1 for i in range(len(shape))]
        return cache.scatter(axis, rows.reshape(view).expand(shape), update)

    return run


@op("Unique", since=11)
def unique(call: Call) -> Function:
    """The distinct values or slices, where each is first, which one each is, how many."""
    axis, outputs = call.attribute("axis"), call.outputs
    x = call.take(0).cpu()
    array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # NumPy has no bfloat16
    y, first, inverse, counts = np.unique(array, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not call.attribute("sorted", 1):
        order = np.argsort(first)
        y, first, counts = y.take(order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    found = [torch.from_numpy(np.ascontiguousarray(v)) for v in (y, first, inverse, counts)]
    found[0] = found[0].to(x.dtype)
    return lambda: found[0] if outputs == 1 else tuple(found[:outputs])
