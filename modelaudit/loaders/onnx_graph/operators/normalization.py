"""Normalization layers, in inference mode."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, broadcasting, op


@op("BatchNormalization", since=7)
def batch_normalization(call: Call) -> Function:
    epsilon = call.attribute("epsilon", 1e-5)
    if call.attribute("training_mode", 0):
        return _with_own_statistics(call, epsilon)
    call.at_most(call.shape())

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)

    return run


def _with_own_statistics(call: Call, epsilon: float) -> Function:
    """Training mode, of constants only: standardised weights are written like that.

    Normalised by statistics of the images themselves, scores would depend on the whole batch.
    """
    if not call.fixed(0):
        raise ValueError("BatchNormalization in training mode; export the model in eval mode")
    momentum, outputs = call.attribute("momentum", 0.9), call.outputs
    axes = [axis for axis in range(call.rank()) if axis != 1]

    def run(
        x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        own_var, own_mean = torch.var_mean(x, axes, correction=0)
        y = F.batch_norm(x, own_mean, own_var, scale, bias, False, 0.0, epsilon)
        running = [
            momentum * old + (1 - momentum) * own for old, own in ((mean, own_mean), (var, own_var))
        ]
        return y if outputs == 1 else (y, *running)[:outputs]

    return run


@op("InstanceNormalization", since=6)
def instance_normalization(call: Call) -> Function:
    call.at_most(call.shape())
    epsilon = call.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@op("LayerNormalization", since=17)
@broadcasting
def layer_normalization(call: Call) -> Function:
    axis, epsilon = call.axis(-1), call.attribute("epsilon", 1e-5)
    sizes = call.shape()[axis:]
    if call.outputs == 1:
        whole = call.shape(1) == sizes and (not call.has(2) or call.shape(2) == sizes)
        if whole:
            return lambda x, scale, bias=None: F.layer_norm(x, sizes, scale, bias, epsilon)
        return lambda x, scale, bias=0: F.layer_norm(x, sizes, eps=epsilon) * scale + bias
    axes = list(range(axis, call.rank()))

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        inverse = (var + epsilon).rsqrt()
        y = (x - mean) * inverse * scale
        return (y if bias is None else y + bias), mean, inverse

    return run


@op("RMSNormalization", since=23)
@broadcasting
def rms_normalization(call: Call) -> Function:
    axis, epsilon = call.axis(-1), call.attribute("epsilon", 1e-5)
    sizes = call.shape()[axis:]
    return lambda x, scale: F.rms_norm(x, sizes, eps=epsilon) * scale


@op("GroupNormalization", since=18)
def group_normalization_per_group(call: Call) -> Function:
    """Opset 18 to 20: one scale and bias per group."""
    call.at_most(call.shape())
    groups, epsilon = call.attribute("num_groups"), call.attribute("epsilon", 1e-5)
    width = call.shape()[1] // groups

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        scale, bias = scale.repeat_interleave(width), bias.repeat_interleave(width)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


@op("GroupNormalization", since=21)
def group_normalization(call: Call) -> Function:
    call.at_most(call.shape())
    groups, epsilon = call.attribute("num_groups"), call.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, groups, scale, bias, epsilon)


@op("LpNormalization")
def lp_normalization(call: Call) -> Function:
    return functools.partial(F.normalize, p=call.attribute("p", 2), dim=call.axis(-1))


@op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(call: Call) -> Function:
    axes = call.attribute("axes", [0, 2, 3])

    def run(x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / (var.sqrt() + 1e-9)

    return run


@op("LRN")
def lrn(call: Call) -> Function:
    call.sized([*call.shape(), call.attribute("size")])  # pads by half of it at both ends
    return functools.partial(
        F.local_response_norm,
        size=call.attribute("size"),
        alpha=call.attribute("alpha", 1e-4),
        beta=call.attribute("beta", 0.75),
        k=call.attribute("bias", 1.0),
    )
