"""Elementwise operators: arithmetic, comparison, logic and activations."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, broadcasting, op, plain

plain(
    Abs=torch.abs,
    Acos=torch.acos,
    Acosh=torch.acosh,
    Asin=torch.asin,
    Asinh=torch.asinh,
    Atan=torch.atan,
    Atanh=torch.atanh,
    BitwiseNot=torch.bitwise_not,
    Ceil=torch.ceil,
    Cos=torch.cos,
    Cosh=torch.cosh,
    Erf=torch.erf,
    Exp=torch.exp,
    Floor=torch.floor,
    HardSwish=F.hardswish,
    IsNaN=torch.isnan,
    Log=torch.log,
    Mish=F.mish,
    Neg=torch.neg,
    Not=torch.logical_not,
    Reciprocal=torch.reciprocal,
    Relu=torch.relu,
    Round=torch.round,
    Sigmoid=torch.sigmoid,
    Sign=torch.sign,
    Sin=torch.sin,
    Sinh=torch.sinh,
    Softplus=F.softplus,
    Softsign=F.softsign,
    Sqrt=torch.sqrt,
    Tan=torch.tan,
    Tanh=torch.tanh,
)
# Until opset 6 these broadcast by attributes instead of by NumPy's rule.
plain(
    since=7,
    Add=torch.add,
    And=torch.logical_and,
    BitwiseAnd=torch.bitwise_and,
    BitwiseOr=torch.bitwise_or,
    BitwiseXor=torch.bitwise_xor,
    Equal=torch.eq,
    Greater=torch.gt,
    GreaterOrEqual=torch.ge,
    Less=torch.lt,
    LessOrEqual=torch.le,
    Mul=torch.mul,
    Or=torch.logical_or,
    Sub=torch.sub,
    Xor=torch.logical_xor,
)
plain(Where=torch.where)


@op("Div", since=7)
@broadcasting
def div(call: Call) -> Function:
    if call.operand(0).is_floating_point():
        return torch.div
    return functools.partial(torch.div, rounding_mode="trunc")


@op("Pow", since=7)
@broadcasting
def pow_(call: Call) -> Function:
    if call.fixed(1) and call.operand(1).dim() == 0:
        exponent = call.take(1).item()
        return lambda x: torch.pow(x, exponent).to(x.dtype)
    return lambda x, exponent: torch.pow(x, exponent).to(x.dtype)


@op("Mod", since=10)
@broadcasting
def mod(call: Call) -> Function:
    return torch.fmod if call.attribute("fmod", 0) else torch.remainder


@op("BitShift", since=11)
@broadcasting
def bit_shift(call: Call) -> Function:
    left = call.attribute("direction") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


@op("IsInf", since=10)
def is_inf(call: Call) -> Function:
    negative = bool(call.attribute("detect_negative", 1))
    positive = bool(call.attribute("detect_positive", 1))

    def run(x: Tensor) -> Tensor:
        return (x.isneginf() & negative) | (x.isposinf() & positive)

    return run


def _variadic(function: Function) -> Function:
    return lambda *operands: functools.reduce(function, operands)


def _mean(*operands: Tensor) -> Tensor:
    return functools.reduce(torch.add, operands) / len(operands)


plain(
    since=8,
    Max=_variadic(torch.maximum),
    Min=_variadic(torch.minimum),
    Sum=_variadic(torch.add),
    Mean=_mean,
)


@op("Clip", since=6)
def clip(call: Call) -> Function:
    low = call.scalar(1, "min")
    high = call.scalar(2, "max")
    if low is None and high is None:
        return torch.clone
    if low is not None and high is not None and low > high:
        return lambda x: torch.full_like(x, high)
    return lambda x: torch.clamp(x, low, high)


@op("PRelu", since=7)
@broadcasting
def prelu(call: Call) -> Function:
    return lambda x, slope: torch.where(x < 0, slope * x, x)


def _with_attributes(function: Function, **defaults: Any) -> Function:
    """A builder that passes node attributes on as keyword arguments.

    ``defaults`` maps the torch argument to ``(ONNX attribute, default)``.
    """

    def build(call: Call) -> Function:
        values = {key: call.attribute(*source) for key, source in defaults.items()}
        return functools.partial(function, **values)

    return build


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _shrink(x: Tensor, bias: float, limit: float) -> Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * F.elu(x, alpha)


op("Elu")(_with_attributes(F.elu, alpha=("alpha", 1.0)))
op("Celu")(_with_attributes(F.celu, alpha=("alpha", 1.0)))
op("LeakyRelu")(_with_attributes(F.leaky_relu, negative_slope=("alpha", 0.01)))
op("ThresholdedRelu")(_with_attributes(_thresholded_relu, alpha=("alpha", 1.0)))
op("Shrink")(_with_attributes(_shrink, bias=("bias", 0.0), limit=("lambd", 0.5)))
op("Selu")(
    _with_attributes(
        _selu,
        alpha=("alpha", 1.67326319217681884765625),
        gamma=("gamma", 1.05070102214813232421875),
    )
)
op("Gelu", since=20)(_with_attributes(F.gelu, approximate=("approximate", "none")))


@op("HardSigmoid")
def hard_sigmoid(call: Call) -> Function:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid
    return functools.partial(_hard_sigmoid, alpha=alpha, beta=beta)


@op("Swish", since=24)
def swish(call: Call) -> Function:
    alpha = call.attribute("alpha", 1.0)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)
