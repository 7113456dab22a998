"""Matrix products and softmax."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op, plain

plain(MatMul=torch.matmul, Det=torch.det)


@op("Gemm", since=7)
def gemm(call: Call) -> Function:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    transposed_a, transposed_b = call.attribute("transA", 0), call.attribute("transB", 0)
    bias_per_column = not call.has(2) or call.rank(2) == 1
    if transposed_b and not transposed_a and alpha == beta == 1.0 and bias_per_column:
        return F.linear

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if transposed_a else a
        b = b.t() if transposed_b else b
        product = a @ b if alpha == 1.0 else alpha * (a @ b)
        return product if c is None else product + (c if beta == 1.0 else beta * c)

    return run


@op("Einsum", since=12)
def einsum(call: Call) -> Function:
    return functools.partial(torch.einsum, call.attribute("equation"))


def _hardmax(x: Tensor, dim: int) -> Tensor:
    return torch.zeros_like(x).scatter_(dim, x.argmax(dim, keepdim=True), 1)


_ALONG_AXIS: dict[str, Function] = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
    "Hardmax": _hardmax,
}


def _over_axis(function: Function, call: Call) -> Function:
    """Since opset 13: over one axis."""
    return functools.partial(function, dim=call.axis(-1))


def _over_trailing_axes(function: Function, call: Call) -> Function:
    """Before opset 13: over the axes from ``axis`` on, flattened."""
    axis, shape = call.axis(1), call.shape()
    if axis == len(shape) - 1:
        return functools.partial(function, dim=axis)
    rows = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return lambda x: function(x.reshape(rows), dim=1).reshape(shape)


for _name, _function in _ALONG_AXIS.items():
    op(_name, since=1)(functools.partial(_over_trailing_axes, _function))
    op(_name, since=13)(functools.partial(_over_axis, _function))
