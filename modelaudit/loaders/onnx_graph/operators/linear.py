"""Matrix products and softmax."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call, broadcast
from modelaudit.loaders.onnx_graph.registry import Function, op, plain

plain(Det=torch.det)


def _product(a: tuple[int, ...], b: tuple[int, ...]) -> list[int]:
    """The shape of a matrix product, in which a vector has no axis of its own."""
    return [*broadcast([a[:-2], b[:-2]]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ())]


@op("MatMul")
def matmul(call: Call) -> Function:
    call.at_most(_product(call.shape(), call.shape(1)))
    return torch.matmul


@op("Gemm", since=7)
def gemm(call: Call) -> Function:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    transposed_a, transposed_b = call.attribute("transA", 0), call.attribute("transB", 0)
    a = call.shape()[:: -1 if transposed_a else 1]
    b = call.shape(1)[:: -1 if transposed_b else 1]
    call.at_most(broadcast([_product(a, b), call.shape(2) if call.has(2) else ()]))
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
