"""Reductions, arg-reductions, sorting and running sums."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


def _sum(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.sum(x, dim, keepdim=keepdim, dtype=x.dtype)


def _mean(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.mean(x, dim, keepdim=keepdim)


def _extreme(function: Function, x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    if x.dtype == torch.bool:
        return _extreme(function, x.byte(), dim, keepdim).bool()
    if x.numel() == 0:
        bounds = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        limit = bounds.min if function is torch.amax else bounds.max
        limit = math.copysign(math.inf, limit) if x.is_floating_point() else limit
        sizes = [1 if i in dim else n for i, n in enumerate(x.shape)]
        empty = x.new_full(sizes, limit)
        return empty if keepdim else empty.sum(dim)
    return function(x, dim, keepdim=keepdim)


def _prod(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    for axis in sorted(dim, reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim, dtype=x.dtype)
    return x


def _l1(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return _sum(x.abs(), dim, keepdim)


def _l2(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.linalg.vector_norm(x.float(), 2, dim, keepdim=keepdim).to(x.dtype)


def _sum_square(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return _sum(x * x, dim, keepdim)


def _log_sum(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return _sum(x, dim, keepdim).log()


def _log_sum_exp(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.logsumexp(x, dim, keepdim=keepdim)


_REDUCTIONS: dict[str, Function] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": functools.partial(_extreme, torch.amax),
    "ReduceMin": functools.partial(_extreme, torch.amin),
    "ReduceProd": _prod,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}
# How one element alone is reduced: what is left of an operator without axes to reduce.
_SINGLE: dict[str, Function] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}


def _reduce(name: str, call: Call) -> Function:
    axes = call.setting(1, "axes")
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return _SINGLE.get(name, torch.clone)
    rank = call.rank()
    dim = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    if rank == 0:
        return _SINGLE.get(name, torch.clone)
    keepdim = bool(call.attribute("keepdims", 1))
    return functools.partial(_REDUCTIONS[name], dim=dim, keepdim=keepdim)


for _name in _REDUCTIONS:
    op(_name)(functools.partial(_reduce, _name))


def _arg_extreme(function: Function, call: Call) -> Function:
    axis, keepdim = call.axis(0), bool(call.attribute("keepdims", 1))
    if not call.attribute("select_last_index", 0):
        return lambda x: function(x, axis, keepdim=keepdim)
    last = call.shape()[axis] - 1
    return lambda x: last - function(x.flip(axis), axis, keepdim=keepdim)


op("ArgMax")(functools.partial(_arg_extreme, torch.argmax))
op("ArgMin")(functools.partial(_arg_extreme, torch.argmin))


@op("TopK")
def top_k(call: Call) -> Function:
    k, axis = call.scalar(1, "k"), call.axis(-1)
    largest = bool(call.attribute("largest", 1))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)

    return run


def _running(function: Function, start: float, call: Call) -> Function:
    axis = int(call.scalar(1, "axis")) % call.rank()
    exclusive, reverse = call.attribute("exclusive", 0), call.attribute("reverse", 0)
    n = call.shape()[axis]

    def run(x: Tensor) -> Tensor:
        x = x.flip(axis) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), start)
            x = torch.cat([first, x.narrow(axis, 0, n - 1)], axis)
        x = function(x, axis, dtype=x.dtype)
        return x.flip(axis) if reverse else x

    return run


op("CumSum", since=11)(functools.partial(_running, torch.cumsum, 0))
op("CumProd", since=26)(functools.partial(_running, torch.cumprod, 1))
