"""Pooling over one to three spatial axes."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op
from modelaudit.loaders.onnx_graph.window import Window, flat_padding, window

_MAX: dict[int, Function] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Function] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVOLUTION: dict[int, Function] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@op("MaxPool")
def max_pool(call: Call) -> Function:
    w = window(call, tuple(call.attribute("kernel_shape")))
    function = functools.partial(
        _MAX[len(w.kernel)], kernel_size=w.kernel, stride=w.stride, dilation=w.dilation
    )
    if call.outputs > 1:
        return _max_pool_with_indices(call, w)
    fits = all(2 * pad <= kernel for pad, kernel in zip(w.before, w.kernel, strict=True))
    if w.symmetric and fits:
        return functools.partial(function, padding=w.before, ceil_mode=w.ceil)
    after = tuple(a + o for a, o in zip(w.after, w.overhang(call.shape()[2:]), strict=True))
    padding = flat_padding(w.before, after)
    dtype = call.operand(0).dtype
    lowest = -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min
    return lambda x: function(F.pad(x, padding, value=lowest))


def _max_pool_with_indices(call: Call, w: Window) -> Function:
    """The second output counts elements of the whole input, batch and channels included."""
    batch, channels, *spatial = call.shape()
    if not w.symmetric:
        raise ValueError("MaxPool indices with uneven padding are not supported")
    column_major = call.attribute("storage_order", 0) == 1 and len(spatial) == 2
    planes = torch.arange(batch * channels, device=call.device) * math.prod(spatial)
    offset = planes.reshape(batch, channels, *(1 for _ in spatial))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = _MAX[len(spatial)](
            x, w.kernel, w.stride, w.before, w.dilation, w.ceil, return_indices=True
        )
        if column_major:
            height, width = spatial
            indices = indices % width * height + indices // width
        return y, indices + offset

    return run


def _window_sums(x: Tensor, w: Window, padding: list[int]) -> Tensor:
    """Sum over each window, by a convolution with ones."""
    planes = F.pad(x, padding).flatten(0, 1)[:, None]
    ones = torch.ones(1, 1, *w.kernel, dtype=x.dtype, device=x.device)
    sums = _CONVOLUTION[len(w.kernel)](planes, ones, stride=w.stride, dilation=w.dilation)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@op("AveragePool")
def average_pool(call: Call) -> Function:
    w = window(call, tuple(call.attribute("kernel_shape")))
    include = bool(call.attribute("count_include_pad", 0))
    fits = all(2 * pad <= kernel for pad, kernel in zip(w.before, w.kernel, strict=True))
    if w.symmetric and fits and not w.ceil and max(w.dilation) == 1:
        return functools.partial(
            _AVERAGE[len(w.kernel)],
            kernel_size=w.kernel,
            stride=w.stride,
            padding=w.before,
            count_include_pad=include,
        )
    sizes = call.shape()[2:]
    overhang = w.overhang(sizes)
    padding = flat_padding(w.before, tuple(a + o for a, o in zip(w.after, overhang, strict=True)))
    counted = torch.ones(1, 1, *sizes, device=call.device)
    if include:
        rest = flat_padding((0,) * len(sizes), overhang)
        count = _window_sums(F.pad(counted, w.padding, value=1.0), w, rest)
    else:
        count = _window_sums(counted, w, padding)
    return lambda x: _window_sums(x, w, padding) / count


@op("LpPool", since=2)
def lp_pool(call: Call) -> Function:
    w, p = window(call, tuple(call.attribute("kernel_shape"))), call.attribute("p", 2)
    overhang = w.overhang(call.shape()[2:])
    padding = flat_padding(w.before, tuple(a + o for a, o in zip(w.after, overhang, strict=True)))
    return lambda x: _window_sums(x.abs() ** p, w, padding) ** (1 / p)


@op("GlobalAveragePool")
def global_average_pool(call: Call) -> Function:
    axes = list(range(2, call.rank()))
    return lambda x: torch.mean(x, axes, keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(call: Call) -> Function:
    axes = list(range(2, call.rank()))
    return lambda x: torch.amax(x, axes, keepdim=True)


@op("GlobalLpPool", since=2)
def global_lp_pool(call: Call) -> Function:
    axes, p = list(range(2, call.rank())), call.attribute("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, axes, keepdim=True)
