"""Operators that exporters take apart, put together again where their parts cost more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.graph import prune
from modelaudit.loaders.onnx_graph.node import Node

Writers = Mapping[str, Node]
Fusion = Callable[[Node, Writers, dict[str, Tensor]], Node | None]


def fuse(nodes: Sequence[Node], constants: dict[str, Tensor], outputs: Sequence[str]) -> list[Node]:
    """Replace the last node of every known pattern by one for the whole; drop what is not read."""
    writers = {name: node for node in nodes for name in node.outputs}
    result = []
    for node in nodes:
        fusion = _FUSIONS.get(node.operator) if not node.domain else None
        result.append((fusion(node, writers, constants) if fusion else None) or node)
    return prune(result, outputs)


def _group_normalization(add: Node, writers: Writers, constants: dict[str, Tensor]) -> Node | None:
    """``Reshape, InstanceNormalization, Reshape, Mul, Add``, as torch's older exporter writes it.

    The first reshape copies images that are channels_last in memory, and every layer behind it is
    then slower.
    """
    parts = [add]
    for operator in ("Mul", "Reshape", "InstanceNormalization", "Reshape"):
        before = _writer(parts[0], operator, writers)
        if before is None:
            return None
        parts.insert(0, before)
    first, norm, back, mul, _ = parts
    shape = writers.get(back.inputs[1])
    same = shape is not None and shape.operator == "Shape" and shape.inputs == first.inputs[:1]
    groups = constants.get(first.inputs[1], torch.empty(0)).tolist()
    whole = len(groups) == 3 and groups[0] == 0 and groups[1] > 0 and groups[2] == -1
    scale, bias = _per_channel(mul, constants), _per_channel(add, constants)
    if not same or not whole or scale is None or bias is None or len(scale) != len(bias):
        return None
    inner_scale, inner_bias = (constants.get(name) for name in norm.inputs[1:])
    if inner_scale is None or inner_bias is None or (inner_scale != 1).any() or inner_bias.any():
        return None
    names = (f"{add.outputs[0]}/scale", f"{add.outputs[0]}/bias")
    constants.update(zip(names, (scale, bias), strict=True))
    settings = {"num_groups": groups[1], "epsilon": norm.attributes.get("epsilon", 1e-5)}
    inputs = (first.inputs[0], *names)
    return Node("GroupNormalization", "", norm.name, inputs, add.outputs, settings, 21)


def _gelu(last: Node, writers: Writers, constants: dict[str, Tensor]) -> Node | None:
    """``0.5 x (1 + erf(x / sqrt(2)))``, in any order, as it is written before opset 20."""
    for factors in _products(last, writers):
        halves = [name for name in factors if _is(name, 0.5, constants)]
        sums = [name for name in factors if _is_one_plus_erf(name, writers, constants)]
        if len(halves) == len(sums) == 1:
            (x,) = (name for name in factors if name not in (*halves, *sums))
            erf = _writer(writers[sums[0]], "Erf", writers)
            if erf is not None and _is_scaled(erf.inputs[0], x, writers, constants):
                return Node("Gelu", "", last.name, (x,), last.outputs, {}, 20)
    return None


def _products(mul: Node, writers: Writers) -> Iterator[tuple[str, str, str]]:
    """The three factors of a product of a product; two ways where both operands are products."""
    for name, other in (mul.inputs, mul.inputs[::-1]):
        inner = writers.get(name)
        if inner is not None and inner.operator == "Mul" and not inner.domain:
            yield (*inner.inputs, other)  # type: ignore[misc]


def _is_one_plus_erf(name: str, writers: Writers, constants: dict[str, Tensor]) -> bool:
    add = writers.get(name)
    if add is None or add.operator != "Add" or _writer(add, "Erf", writers) is None:
        return False
    return any(_is(operand, 1.0, constants) for operand in add.inputs)


def _is_scaled(name: str, x: str, writers: Writers, constants: dict[str, Tensor]) -> bool:
    """Whether a value is ``x`` over the square root of two."""
    node = writers.get(name)
    if node is None or x not in node.inputs:
        return False
    if node.operator == "Div":
        return node.inputs[0] == x and _is(node.inputs[1], math.sqrt(2), constants)
    return node.operator == "Mul" and any(_is(i, math.sqrt(0.5), constants) for i in node.inputs)


def _is(name: str, number: float, constants: dict[str, Tensor]) -> bool:
    """Whether a value is this constant, as float32 holds it."""
    value = constants.get(name)
    if value is None or value.numel() != 1 or value.dim() > 1:
        return False
    return math.isclose(float(value), number, rel_tol=1e-6)


_FUSIONS: dict[str, Fusion] = {"Add": _group_normalization, "Mul": _gelu}


def _writer(node: Node, operator: str, writers: Writers) -> Node | None:
    """The node with this operator that an operand of ``node`` comes from."""
    sources = (writers[name] for name in node.inputs if name in writers)
    return next((source for source in sources if source.operator == operator), None)


def _per_channel(node: Node, constants: dict[str, Tensor]) -> Tensor | None:
    """The constant operand ``[C, 1, 1]`` of a node, as ``[C]``."""
    for name in node.inputs:
        value = constants.get(name)
        if value is not None and value.dim() == 3 and value.numel() == len(value) > 1:
            return value.flatten()
    return None
