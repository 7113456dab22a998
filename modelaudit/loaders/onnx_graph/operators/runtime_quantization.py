"""ONNX Runtime's own quantised layers (domain com.microsoft), from its QOperator format.

Each is a float layer between a dequantisation and a quantisation. Specified in
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.operators.pooling import average_pool, global_average_pool
from modelaudit.loaders.onnx_graph.operators.quantised_layers import (
    dequantise,
    known_weight,
    requantise,
)
from modelaudit.loaders.onnx_graph.registry import Builder, Function, op

_runtime_op = functools.partial(op, domain="com.microsoft")


def _output_type(call: Call, index: int) -> torch.dtype:
    """Of the output's zero point, or of the input where there is none; the output is held."""
    dtype = call.dtype(index) if call.has(index) else call.dtype(0)
    call.hold(0, dtype)
    return dtype


def _one_operand(layer: Callable[[Call], Function]) -> Builder:
    """Operands: x, scale, zero point; scale and zero point of the result."""

    def build(call: Call) -> Function:
        if call.attribute("channels_last", 0):
            raise ValueError("channels_last is not supported")
        function, dtype = layer(call), _output_type(call, 4)

        def run(*operands: Tensor) -> Tensor:
            y = function(dequantise(*operands[:3]))
            return requantise(y, *operands[3:], dtype=dtype)

        return run

    return build


def _two_operands(function: Function) -> Builder:
    """Operands: two of tensor, scale, zero point; scale and zero point of the result."""

    def build(call: Call) -> Function:
        dtype = _output_type(call, 7)

        def run(*operands: Tensor) -> Tensor:
            y = function(dequantise(*operands[:3]), dequantise(*operands[3:6]))
            return requantise(y, *operands[6:], dtype=dtype)

        return run

    return build


def _leaky_relu(call: Call) -> Function:
    return functools.partial(F.leaky_relu, negative_slope=call.attribute("alpha", 0.01))


_runtime_op("QLinearAdd")(_two_operands(torch.add))
_runtime_op("QLinearMul")(_two_operands(torch.mul))
_runtime_op("QLinearSigmoid")(_one_operand(lambda call: torch.sigmoid))
_runtime_op("QLinearLeakyRelu")(_one_operand(_leaky_relu))
_runtime_op("QLinearAveragePool")(_one_operand(average_pool))
_runtime_op("QLinearGlobalAveragePool")(_one_operand(global_average_pool))


@_runtime_op("QLinearConcat")
def q_linear_concat(call: Call) -> Function:
    """Operands: scale and zero point of the result; any number of tensor, scale, zero point."""
    dtype, axis = call.dtype(1), call.attribute("axis")
    call.hold(0, dtype)

    def run(scale: Tensor, zero: Tensor, *operands: Tensor) -> Tensor:
        parts = [dequantise(*operands[i : i + 3]) for i in range(0, len(operands), 3)]
        return requantise(torch.cat(parts, axis), scale, zero, dtype=dtype)

    return run


@_runtime_op("QGemm")
def q_gemm(call: Call) -> Function:
    """Operands: a and b with scale and zero point, bias, scale and zero point of the result."""
    transposed = call.attribute("transA", 0), call.attribute("transB", 0)
    alpha, biased, quantised = call.attribute("alpha", 1.0), call.has(6), call.has(7)
    if quantised:
        _output_type(call, 8)
    dtype = call.dtype(8) if call.has(8) else call.dtype(0)
    weight = known_weight(call, 3, axis=-1 - transposed[1])

    def run(*operands: Tensor) -> Tensor:
        a, b = dequantise(*operands[:3]), weight
        if b is None:
            b = dequantise(*operands[3:6], axis=-1 - transposed[1])
        y = alpha * (a.t() if transposed[0] else a) @ (b.t() if transposed[1] else b)
        if biased:
            y = y + alpha * operands[6] * (operands[1] * operands[4])
        return requantise(y, *operands[7:], dtype=dtype) if quantised else y

    return run
