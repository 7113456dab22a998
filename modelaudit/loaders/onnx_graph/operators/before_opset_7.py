"""Operators as they were before opset 7.

Arithmetic took its second operand as it was, or with the attribute ``broadcast`` aligned to an
``axis`` of the first one; normalization said with ``is_test`` that it was not training.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call, broadcast
from modelaudit.loaders.onnx_graph.operators.linear import gemm
from modelaudit.loaders.onnx_graph.operators.normalization import batch_normalization
from modelaudit.loaders.onnx_graph.registry import Function, find, op

_TWO_OPERANDS = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")


def _aligned(name: str, call: Call) -> Function:
    builder = find("", name, 7)
    if builder is None:
        raise ValueError(f"{name} is not implemented")
    function, axis, rank = builder(call), call.attribute("axis"), call.rank()
    if not call.attribute("broadcast", 0) or axis is None or 1 in call.taken:
        return function
    shape = call.shape(1)
    target = shape + (1,) * (rank - int(axis) % rank - len(shape))
    call.at_most(broadcast([call.shape(), target]))
    return lambda a, b: function(a, b.reshape(target))


for _name in _TWO_OPERANDS:
    op(_name)(functools.partial(_aligned, _name))
op("Gemm")(gemm)


@op("BatchNormalization")
def batch_normalization_with_is_test(call: Call) -> Function:
    if not call.attribute("is_test", 0):
        raise ValueError("BatchNormalization in training mode; export the model in eval mode")
    return batch_normalization(call)


@op("PRelu")
def prelu_per_channel(call: Call) -> Function:
    """One slope, or one per channel."""
    target = (-1,) + (1,) * (call.rank() - 2)

    def run(x: Tensor, slope: Tensor) -> Tensor:
        return torch.where(x < 0, slope.reshape(target) * x, x)

    return run
