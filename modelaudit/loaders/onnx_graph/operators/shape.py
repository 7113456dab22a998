"""Operators that rearrange a tensor without looking at its values."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


@op("Shape")
def shape(call: Call) -> Function:
    sizes = call.shape()[call.attribute("start", 0) : call.attribute("end")]
    call.drop(0)
    return lambda: torch.tensor(sizes, dtype=torch.int64)


@op("Size")
def size(call: Call) -> Function:
    count = math.prod(call.shape())
    call.drop(0)
    return lambda: torch.tensor(count, dtype=torch.int64)


@op("Reshape")
def reshape(call: Call) -> Function:
    target, sizes = call.setting(1, "shape"), call.shape()
    if not call.attribute("allowzero", 0):
        target = [sizes[i] if n == 0 else n for i, n in enumerate(target)]
    return lambda x: x.reshape(target)


@op("Flatten")
def flatten(call: Call) -> Function:
    axis, sizes = call.attribute("axis", 1), call.shape()
    if axis < 0:
        axis += len(sizes)
    target = (math.prod(sizes[:axis]), math.prod(sizes[axis:]))
    return lambda x: x.reshape(target)


@op("Squeeze")
def squeeze(call: Call) -> Function:
    axes, sizes = call.setting(1, "axes"), call.shape()
    if axes is None:
        axes = [i for i, n in enumerate(sizes) if n == 1]
    dropped = {axis % len(sizes) for axis in axes}
    if any(sizes[axis] != 1 for axis in dropped):
        raise ValueError(f"cannot squeeze axes {axes} of shape {sizes}")
    target = [n for i, n in enumerate(sizes) if i not in dropped]
    return lambda x: x.reshape(target)


@op("Unsqueeze")
def unsqueeze(call: Call) -> Function:
    axes = call.setting(1, "axes")
    axes = axes if isinstance(axes, list) else [axes]
    rank = call.rank() + len(axes)
    target = list(call.shape())
    for axis in sorted(axis % rank for axis in axes):
        target.insert(axis, 1)
    return lambda x: x.reshape(target)


@op("Transpose")
def transpose(call: Call) -> Function:
    order = call.attribute("perm", list(range(call.rank()))[::-1])
    return lambda x: x.permute(order)


@op("Concat", since=4)
def concat(call: Call) -> Function:
    axis = call.axis()
    call.at_most([sum(x.numel() for x in call.operands if x is not None)])
    return lambda *operands: torch.cat(operands, axis)


@op("Split")
def split(call: Call) -> Function:
    axis, parts = call.axis(0), call.setting(1, "split")
    if parts is None:
        count = call.attribute("num_outputs", call.outputs)
        parts = math.ceil(call.shape()[axis] / count)
    return lambda x: torch.split(x, parts, axis)


@op("Slice")
def slice_(call: Call) -> Function:
    starts, ends = call.setting(1, "starts"), call.setting(2, "ends")
    axes = call.setting(3, "axes", range(len(starts)))
    steps = call.setting(4, "steps", [1] * len(starts))
    index, flipped = [slice(None)] * call.rank(), []
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        n = call.shape()[axis]
        start, stop, step = slice(*bounds).indices(n)
        if step < 0:  # torch slices forwards only: flip, then slice
            flipped.append(axis)
            start, stop, step = n - 1 - start, n - 1 - stop, -step
        index[axis] = slice(start, max(start, stop), step)
    key = tuple(index)
    if flipped:
        return lambda x: x.flip(flipped)[key]
    return lambda x: x[key]


@op("Expand", since=8)
def expand(call: Call) -> Function:
    target = torch.broadcast_shapes(call.shape(), tuple(call.setting(1, "shape")))
    call.sized(target)
    return lambda x: x.expand(target)


@op("Tile", since=6)
def tile(call: Call) -> Function:
    repeats = call.setting(1, "repeats")
    call.sized([n * times for n, times in zip(call.shape(), repeats, strict=True)])
    return lambda x: x.repeat(repeats)


@op("DepthToSpace")
def depth_to_space(call: Call) -> Function:
    b, c, h, w = call.shape()
    s = call.attribute("blocksize")
    depth_first = call.attribute("mode", "DCR") == "DCR"
    parts = (b, s, s, c // s**2, h, w) if depth_first else (b, c // s**2, s, s, h, w)
    order = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)
    target = (b, c // s**2, h * s, w * s)
    return lambda x: x.reshape(parts).permute(order).reshape(target)


@op("SpaceToDepth")
def space_to_depth(call: Call) -> Function:
    b, c, h, w = call.shape()
    s = call.attribute("blocksize")
    parts, target = (b, c, h // s, s, w // s, s), (b, c * s**2, h // s, w // s)
    depth_first = call.attribute("mode", "DCR") == "DCR"
    order = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)
    return lambda x: x.reshape(parts).permute(order).reshape(target)


@op("Trilu", since=14)
def trilu(call: Call) -> Function:
    diagonal = call.scalar(1, "k", 0)
    function = torch.triu if call.attribute("upper", 1) else torch.tril
    return functools.partial(function, diagonal=diagonal)


@op("ReverseSequence", since=10)
def reverse_sequence(call: Call) -> Function:
    batch, time = call.attribute("batch_axis", 1), call.attribute("time_axis", 0)
    lengths = call.take(1).tolist()

    def run(x: Tensor) -> Tensor:
        x = x.movedim((batch, time), (0, 1))
        rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths, strict=True)]
        return torch.stack(rows).movedim((0, 1), (batch, time))

    return run
