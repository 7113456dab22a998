"""Operators that exporters take apart, put together again where their parts cost more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.node import Node


def fuse_group_normalization(
    nodes: Sequence[Node], constants: dict[str, Tensor], outputs: Sequence[str]
) -> list[Node]:
    """Replace ``Reshape, InstanceNormalization, Reshape, Mul, Add`` by ``GroupNormalization``.

    torch's older exporter writes group normalisation like that. The first reshape copies images
    that are channels_last in memory, and every layer behind it is then slower.
    """
    readers = Counter(outputs)
    readers.update(name for node in nodes for name in node.reads())
    writers = {name: node for node in nodes for name in node.outputs}
    fused: dict[str, Node] = {}
    gone: set[str] = set()
    for node in nodes:
        parts = _parts(node, writers, constants)
        inner = [part.outputs[0] for part in parts[:-1]]
        if parts and all(readers[name] == 1 for name in inner):
            fused[node.outputs[0]] = _group_normalization(parts, constants)
            gone.update(inner)
    rest = [node for node in nodes if not gone.intersection(node.outputs)]
    return [fused.get(node.outputs[0], node) for node in rest]


def _parts(add: Node, writers: dict[str, Node], constants: dict[str, Tensor]) -> list[Node]:
    """The five nodes that end in ``add``, the first one first; empty if they are not these."""
    parts = [add]
    for operator in ("Mul", "Reshape", "InstanceNormalization", "Reshape"):
        before = next((writers[name] for name in parts[0].inputs if name in writers), None)
        if before is None or before.operator != operator:
            return []
        parts.insert(0, before)
    first, norm, back, scale, _ = parts
    shape = writers.get(back.inputs[1])
    groups = constants.get(first.inputs[1], torch.empty(0)).tolist()
    same = shape is not None and shape.operator == "Shape" and shape.inputs == first.inputs[:1]
    plain = all(name in constants for name in norm.inputs[1:]) and (
        bool((constants[norm.inputs[1]] == 1).all() and (constants[norm.inputs[2]] == 0).all())
    )
    affine = [_per_channel(node, constants) for node in (scale, add)]
    matching = affine[0] is not None and affine[1] is not None and len(affine[0]) == len(affine[1])
    whole = len(groups) == 3 and groups[0] == 0 and groups[1] > 0 and groups[2] == -1
    fits = add.operator == "Add" and same and plain and matching and whole
    return parts if fits and shape is not None and not shape.attributes else []


def _per_channel(node: Node, constants: dict[str, Tensor]) -> Tensor | None:
    """The constant operand ``[C, 1, 1]`` of a node, as ``[C]``."""
    for name in node.inputs:
        value = constants.get(name)
        if value is not None and value.dim() == 3 and value.numel() == len(value) > 1:
            return value.flatten()
    return None


def _group_normalization(parts: list[Node], constants: dict[str, Tensor]) -> Node:
    first, norm, _, scale, add = parts
    names = []
    for node in (scale, add):
        value = _per_channel(node, constants)
        if value is not None:
            names.append(f"{node.outputs[0]}/flat")
            constants[names[-1]] = value
    attributes = {
        "num_groups": int(constants[first.inputs[1]][1]),
        "epsilon": norm.attributes.get("epsilon", 1e-5),
    }
    inputs = (first.inputs[0], *names)
    return Node("GroupNormalization", "", norm.name, inputs, add.outputs, attributes, 21)
