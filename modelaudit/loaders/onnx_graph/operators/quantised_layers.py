"""Products and convolutions of quantised values."""

from __future__ import annotations

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.operators.convolution import convolution
from modelaudit.loaders.onnx_graph.operators.quantization import quantise
from modelaudit.loaders.onnx_graph.registry import Function, op
from modelaudit.loaders.onnx_graph.window import window


def _centred(x: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """Integers minus their zero point, in float64, which adds up integers of 32 bits exactly."""
    return x.double() if zero is None else x.double() - _aligned(zero, x, axis).double()


def _aligned(setting: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A scale or zero point; one with one axis runs along ``axis`` of ``x``."""
    if axis is None or setting.dim() != 1 or setting.numel() == 1:
        return setting
    return setting.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


@op("MatMulInteger", since=10)
def mat_mul_integer(call: Call) -> Function:
    call.hold(0, torch.int32)

    def run(
        a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
    ) -> Tensor:
        return _centred(a, a_zero, -2) @ _centred(b, b_zero, -1)

    return run


@op("ConvInteger", since=10)
def conv_integer(call: Call) -> Function:
    function = convolution(call, window(call, call.shape(1)[2:]))
    call.hold(0, torch.int32)

    def run(
        x: Tensor, weight: Tensor, x_zero: Tensor | None = None, zero: Tensor | None = None
    ) -> Tensor:
        return function(_centred(x, x_zero), _centred(weight, zero, 0))

    return run


def dequantise(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = -1) -> Tensor:
    """Integers -> float32; scales and zero points with one axis run along ``axis`` of ``x``."""
    centred = x.float() if zero is None else x.float() - _aligned(zero, x, axis).float()
    return centred * _aligned(scale, x, axis).float()


def known_weight(call: Call, index: int, axis: int) -> Tensor | None:
    """The weight whose value, scale and zero point are operands from ``index`` on, if fixed."""
    if not all(call.fixed(i) for i in range(index, index + 3)):
        return None
    parts = [call.operand(i).to(call.device) for i in range(index, index + 3)]
    return dequantise(parts[0], parts[1], parts[2], axis=axis)


def requantise(
    x: Tensor, scale: Tensor, zero: Tensor | None = None, *, dtype: torch.dtype
) -> Tensor:
    """float32 -> integers of ``dtype``, held as floats."""
    return quantise(x / scale.float(), None if zero is None else zero.float(), dtype)


@op("QLinearMatMul", since=10)
def q_linear_mat_mul(call: Call) -> Function:
    dtype, weight = call.dtype(7), known_weight(call, 3, axis=-1)
    call.hold(0, dtype)

    def run(*operands: Tensor) -> Tensor:
        b = dequantise(*operands[3:6], axis=-1) if weight is None else weight
        return requantise(dequantise(*operands[:3], axis=-2) @ b, *operands[6:], dtype=dtype)

    return run


@op("QLinearConv", since=10)
def q_linear_conv(call: Call) -> Function:
    function, dtype = convolution(call, window(call, call.shape(3)[2:])), call.dtype(7)
    known = known_weight(call, 3, axis=0)
    call.hold(0, dtype)

    def run(*operands: Tensor) -> Tensor:
        weight = dequantise(*operands[3:6], axis=0) if known is None else known
        bias = operands[8] * (operands[1] * operands[4]) if len(operands) > 8 else None
        y = function(dequantise(*operands[:3]), weight, bias)
        return requantise(y, *operands[6:8], dtype=dtype)

    return run
