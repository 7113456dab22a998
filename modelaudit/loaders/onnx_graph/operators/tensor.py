"""Operators that make, convert or pad tensors."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.convert import FLOAT8, torch_dtype
from modelaudit.loaders.onnx_graph.registry import Function, op

# Halfway between the largest number, 448, and the 480 that would follow.
_E4M3FN_OVERFLOW = 464


def _unchanged(x: Any) -> Any:
    return x


@op("Identity")
def identity(call: Call) -> Function:
    return _unchanged


@op("Dropout")
def dropout(call: Call) -> Function:
    """Identity at inference; a mask of ones as second output."""
    ratio = call.scalar(1, "ratio", 0.5)
    if call.scalar(2, "training_mode", False) and ratio != 0:
        raise ValueError("Dropout in training mode is random; export the model in eval mode")
    if call.outputs == 1:
        return _unchanged
    return lambda x: (x, torch.ones_like(x, dtype=torch.bool))


@op("Constant")
def constant(call: Call) -> Function:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = call.attribute(name)
        if value is not None:
            kind = None if name == "value" else torch.float32 if "float" in name else torch.int64
            return lambda: torch.as_tensor(value, dtype=kind)
    raise ValueError("sparse and string constants are not supported")


@op("ConstantOfShape")
def constant_of_shape(call: Call) -> Function:
    value = call.attribute("value", torch.zeros(1))
    sizes = call.setting(0, "shape")
    sizes = call.sized(sizes)
    return lambda: torch.full(sizes, value.item(), dtype=value.dtype)


@op("Range")
def range_(call: Call) -> Function:
    dtype = call.operand(0).dtype
    start, limit, delta = (call.scalar(i, "") for i in range(3))
    call.sized([max(0, math.ceil((limit - start) / delta))])
    return lambda: torch.arange(start, limit, delta, dtype=dtype)


@op("EyeLike")
def eye_like(call: Call) -> Function:
    like, (rows, columns) = call.operand(0), call.shape()
    dtype = torch_dtype(call.attribute("dtype")) if call.attribute("dtype") else like.dtype
    offset = call.attribute("k", 0)
    call.drop(0)
    ones = torch.ones(rows, columns)
    return lambda: (ones.triu(offset) * ones.tril(offset)).to(dtype)


@op("Cast", since=6)
def cast(call: Call) -> Function:
    dtype = torch_dtype(call.attribute("to"))
    if call.dtype() == dtype and call.operand(0).dtype == dtype:
        return _unchanged
    return functools.partial(to_dtype, dtype=dtype, saturate=bool(call.attribute("saturate", 1)))


@op("CastLike", since=15)
def cast_like(call: Call) -> Function:
    dtype = call.dtype(1)
    call.drop(1)
    return functools.partial(to_dtype, dtype=dtype, saturate=bool(call.attribute("saturate", 1)))


def to_dtype(x: Tensor, dtype: torch.dtype, saturate: bool = True) -> Tensor:
    """The tensor in another type; 8-bit floats are clamped to their range or not at all."""
    if dtype not in FLOAT8:
        return x.to(dtype)
    x = x.float()
    if saturate:
        x = x.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    elif dtype == torch.float8_e4m3fn:  # has no infinity; torch clamps some of its overflows
        x = x.masked_fill(x.abs() > _E4M3FN_OVERFLOW, math.nan)
    return x.to(dtype)


@op("BitCast", since=26)
def bit_cast(call: Call) -> Function:
    dtype = torch_dtype(call.attribute("to"))
    return lambda x: x.view(dtype)


@op("OneHot", since=9)
def one_hot(call: Call) -> Function:
    depth, axis = int(call.scalar(1, "")), call.attribute("axis", -1)
    off, on = call.take(2)
    call.sized([*call.shape(), depth])

    def run(indices: Tensor) -> Tensor:
        classes = torch.arange(depth, device=indices.device)
        inside = (indices >= -depth) & (indices < depth)
        hit = (indices.long().remainder(depth)[..., None] == classes) & inside[..., None]
        return torch.where(hit, on.to(hit.device), off.to(hit.device)).movedim(-1, axis)

    return run


def _pad_by_index(x: Tensor, indices: dict[int, Tensor]) -> Tensor:
    for axis, index in indices.items():
        x = x.index_select(axis, index)
    return x


@op("Pad")
def pad(call: Call) -> Function:
    pads, mode = call.setting(1, "pads"), call.attribute("mode", "constant")
    value = call.scalar(2, "value", 0.0)
    count, rank = len(pads) // 2, call.rank()
    axes = [axis % rank for axis in call.setting(3, "axes", range(count))]
    amounts = dict(zip(axes, zip(pads[:count], pads[count:], strict=True), strict=True))
    call.sized([n + sum(amounts.get(axis, (0, 0))) for axis, n in enumerate(call.shape())])
    if mode == "constant":
        order = [amount for axis in range(rank)[::-1] for amount in amounts.get(axis, (0, 0))]
        return lambda x: F.pad(x, order, value=value)
    indices = {}
    for axis, (before, after) in amounts.items():
        n = call.shape()[axis]
        source = np.arange(n)[max(-before, 0) : n - max(-after, 0)]
        width: Any = (max(before, 0), max(after, 0))
        if any(width) or len(source) < n:
            padded = np.pad(source, width, mode=mode)
            indices[axis] = torch.from_numpy(padded).to(call.device)
    return functools.partial(_pad_by_index, indices=indices)
