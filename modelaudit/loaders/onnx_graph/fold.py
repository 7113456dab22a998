"""Arithmetic per channel behind a convolution, folded into its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.node import Node

# Per channel: x -> factor * x + shift, in float64.
Affine = tuple[Tensor, Tensor]


def fold_into_convolutions(
    nodes: Sequence[Node], constants: dict[str, Tensor], outputs: Sequence[str]
) -> list[Node]:
    """Scale the weights of each convolution whose only reader is affine per channel.

    That is a batch normalization, or its parts: ``Mul``, ``Add``, ``Sub`` and ``Div`` with
    constants. All of these are linear in the input, so this is exact up to rounding; the new
    weights are computed in float64, and join ``constants``.
    """
    readers = Counter(outputs)
    readers.update(name for node in nodes for name in node.reads())
    result: list[Node | None] = []
    writers: dict[str, int] = {}
    for node in nodes:
        name = next((name for name in node.inputs if name in writers), "")
        conv = result[writers[name]] if name and readers[name] == 1 else None
        affine = _affine(node, name, conv, constants) if conv is not None else None
        if conv is not None and affine is not None:
            result[writers[name]] = None
            node = _merge(conv, affine, node.outputs[0], constants)
        if node.operator == "Conv" and all(i in constants for i in node.inputs[1:]):
            writers[node.outputs[0]] = len(result)
        result.append(node)
    return [node for node in result if node is not None]


def _affine(node: Node, x: str, conv: Node, constants: dict[str, Tensor]) -> Affine | None:
    """What the node does to each channel of ``x``, the result of ``conv``; None if not that."""
    others = [name for name in node.inputs if name != x]
    weight = constants[conv.inputs[1]]
    if node.domain or not others or not all(name in constants for name in others):
        return None
    if node.operator == "BatchNormalization":
        return _normalization(node, constants) if node.inputs[0] == x else None
    value = _per_channel(constants[others[0]], weight)
    if value is None:
        return None
    zero, one = torch.zeros_like(value), torch.ones_like(value)
    forward = node.inputs[0] == x
    table: dict[tuple[str, bool], Affine] = {
        ("Mul", True): (value, zero),
        ("Mul", False): (value, zero),
        ("Add", True): (one, value),
        ("Add", False): (one, value),
        ("Sub", True): (one, -value),
        ("Sub", False): (-one, value),
        ("Div", True): (1 / value, zero),
    }
    return table.get((node.operator, forward)) if node.opset >= 7 else None


def _normalization(node: Node, constants: dict[str, Tensor]) -> Affine | None:
    if len(node.outputs) > 1 or node.attributes.get("training_mode", 0):
        return None
    scale, shift, mean, var = (constants[name].double() for name in node.inputs[1:])
    factor = scale / (var + node.attributes.get("epsilon", 1e-5)).sqrt()
    return factor, shift - mean * factor


def _per_channel(value: Tensor, weight: Tensor) -> Tensor | None:
    """A constant as one number per output channel of ``weight``, where it broadcasts like that."""
    rank, channels = weight.dim(), weight.shape[0]
    if value.dtype != weight.dtype or value.dim() > rank:
        return None
    shape = (1,) * (rank - value.dim()) + tuple(value.shape)
    if value.numel() != 1 and shape != (1, channels) + (1,) * (rank - 2):
        return None
    return value.double().reshape(-1).expand(channels)


def _merge(conv: Node, affine: Affine, output: str, constants: dict[str, Tensor]) -> Node:
    """The convolution that does what ``conv`` followed by ``affine`` does."""
    factor, shift = affine
    weight = constants[conv.inputs[1]]
    bias = constants[conv.inputs[2]].double() if len(conv.inputs) > 2 else 0.0
    names = (f"{output}/weight", f"{output}/bias")
    columns = factor.reshape(-1, *(1 for _ in weight.shape[1:]))
    constants[names[0]] = (weight.double() * columns).to(weight.dtype)
    constants[names[1]] = (bias * factor + shift).to(weight.dtype)
    return replace(conv, inputs=(conv.inputs[0], *names), outputs=(output,))
