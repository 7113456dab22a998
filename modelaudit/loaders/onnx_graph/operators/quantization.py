"""Quantised operators.

Quantised values are held as floats (see ``held.py``): rounding happens in the forward pass, and the
gradient passes it as if it were not there, except where a value is clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.convert import FLOAT8, torch_dtype
from modelaudit.loaders.onnx_graph.operators.tensor import to_dtype
from modelaudit.loaders.onnx_graph.registry import Function, op


class _StraightThrough(torch.autograd.Function):
    """A rounding function whose gradient is that of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
        return rounding(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def quantise(x: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``x`` in units of the scale -> integers of ``dtype``, as floats."""
    limits, rounded = torch.iinfo(dtype), _StraightThrough.apply(x, torch.round)
    shifted = rounded if zero is None else rounded + zero
    return shifted.clamp(limits.min, limits.max)


def _quantise_float8(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    def rounding(x: Tensor) -> Tensor:
        return to_dtype(x, dtype, saturate).to(x.dtype)

    limits = torch.finfo(dtype)
    return _StraightThrough.apply(x.clamp(limits.min, limits.max) if saturate else x, rounding)


def _along(call: Call, index: int = 1) -> Callable[[Tensor], Tensor]:
    """How to bring a scale or zero point to the shape of the first operand.

    One for the whole tensor, one per index of ``axis``, or one per block of ``block_size``.
    """
    shape, rank, block = call.shape(index), call.rank(), call.attribute("block_size", 0)
    if len(shape) == 0 or shape == (1,):
        return lambda scale: scale.reshape(())
    axis = call.axis(1)
    if block:
        size = call.shape()[axis]
        call.sized([*shape, block])
        return lambda scale: scale.repeat_interleave(block, axis).narrow(axis, 0, size)
    target = [-1 if i == axis else 1 for i in range(rank)]
    return lambda scale: scale.reshape(target)


def _typed(call: Call, index: int, attribute: str, default: torch.dtype) -> torch.dtype:
    """An element type given by an operand, by an attribute, or neither."""
    if call.has(index):
        return call.dtype(index)
    given = call.attribute(attribute, 0)
    return torch_dtype(given) if given else default


def _drop_zero(call: Call) -> None:
    """A zero point that is zero everywhere need not be added."""
    if call.fixed(2) and not bool(call.operand(2).float().any()):
        call.drop(2)


@op("QuantizeLinear", since=10)
@op("QuantizeLinear", domain="com.microsoft")
def quantize_linear(call: Call) -> Function:
    dtype, along = _typed(call, 2, "output_dtype", torch.uint8), _along(call)
    saturate, precision = bool(call.attribute("saturate", 1)), call.attribute("precision", 0)
    working = torch_dtype(precision) if precision else None
    call.hold(0, dtype)
    _drop_zero(call)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        ratio = x.to(working) / along(scale.to(working)) if working else x / along(scale)
        if dtype in FLOAT8:
            return _quantise_float8(ratio, dtype, saturate)
        return quantise(ratio.float(), None if zero is None else along(zero).float(), dtype)

    return run


@op("DequantizeLinear", since=10)
@op("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(call: Call) -> Function:
    along = _along(call)
    dtype = call.attribute("output_dtype", 0)
    target = torch_dtype(dtype) if dtype else call.dtype(1)
    _drop_zero(call)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = x.float() if zero is None else x.float() - along(zero).float()
        return (x * along(scale)).to(target)

    return run


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(call: Call) -> Function:
    """The range holds every value, so the gradient passes everywhere.

    Scale and zero point count as constants in it.
    """
    call.hold(0, torch.uint8)

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
        scale = torch.where(high == low, 1.0, high - low) / 255
        zero = (-low / scale).clamp(0, 255).round()

        def rounding(ratio: Tensor) -> Tensor:
            return quantise(ratio, zero, torch.uint8)

        return _StraightThrough.apply(x / scale, rounding), scale, zero.to(torch.uint8)

    return run
