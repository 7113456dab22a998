"""A graph that was exported for a fixed number of images, rewritten for any number."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.graph import Constants, OnnxGraph, last_uses
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.trace import Trace

_OPSET = 15  # of the nodes that are added: Shape with a start and an end


def free_batch(graph: OnnxGraph, images: Tensor, batch: int, last: bool = False) -> OnnxGraph:
    """The graph with fixed extents along the batch replaced by the actual number of images.

    The graph runs on ``batch`` and on twice as many images side by side. Where a value has become
    twice as large along one axis, that axis holds the images, and ``Reshape``, ``Expand``,
    ``Resize`` and ``Concat`` that state its extent are rewritten. Whether the result computes the
    same is for the caller to verify.

    Args:
        graph: of one input, which works with ``batch`` images.
        images: at least ``2 * batch`` of them.
        last: where a reshape can put the images on several axes alike, take the last, not the
            first.

    Raises:
        ModelFileError: a node fails with more images however it is written.
    """
    return _Rewriting(graph, images, batch, last).run()


class _Rewriting:
    """Both runs, and the nodes and constants of the new graph so far."""

    def __init__(self, graph: OnnxGraph, images: Tensor, batch: int, last: bool) -> None:
        self.graph, self.batch, self.last = graph, batch, last
        self.constants = graph.constants.values()
        self.few = Trace(self.constants, {graph.inputs[0]: images[:batch]})
        self.many = Trace(self.constants, {graph.inputs[0]: images[: 2 * batch]})

    def run(self) -> OnnxGraph:
        rules = {
            "Reshape": self.reshape,
            "Expand": self.expand,
            "Resize": self.resize,
            "Concat": self.concat,
        }
        nodes: list[Node] = []
        finished = last_uses(self.graph.nodes, self.graph.outputs)
        for node, names in zip(self.graph.nodes, finished, strict=True):
            rule = rules.get(node.operator) if not node.domain else None
            rewritten = list(rule(node)) if rule else [node]
            self.few.run(node, names)
            for new in rewritten[:-1]:
                self.many.run(new)
            self.many.run(rewritten[-1], names)
            nodes += rewritten
        return OnnxGraph(nodes, Constants(self.constants), self.graph.inputs, self.graph.outputs)

    def axis(self, name: str) -> int | None:
        """The axis of a value that holds the images."""
        few, many = self.few.values[name], self.many.values[name]
        if few is None or many is None or few.dim() != many.dim():
            return None
        grown = [i for i in range(few.dim()) if few.shape[i] != many.shape[i]]
        return grown[0] if len(grown) == 1 else None

    def stated(self, node: Node, index: int) -> list[int] | None:
        """The extents that an operand of a node states, whatever the number of images."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        few, many = self.few.values[name], self.many.values[name]
        if few is None or many is None or name not in self.few.fixed & self.many.fixed:
            return None
        return few.tolist() if torch.equal(few, many) else None

    def constant(self, node: Node, value: Tensor) -> str:
        """The name of a new constant for a node."""
        name = f"{node.outputs[0]}/free{len(self.constants)}"
        self.constants[name] = value
        self.many.define(name, value)
        return name

    def reshape(self, node: Node) -> Iterator[Node]:
        """The axis of the result that holds the images is left open."""
        axis, target = self.axis(node.inputs[0]), self.stated(node, 1)
        few = self.few.values[node.inputs[0]]
        if axis is None or not target or few is None or 0 in few.shape:
            yield node
            return
        sizes = [few.shape[i] if n == 0 else n for i, n in enumerate(target)]
        if -1 in sizes:
            sizes[sizes.index(-1)] = few.numel() // max(1, -math.prod(sizes))
        place = _place(tuple(few.shape), axis, sizes, self.batch, self.last)
        if place is None or target[place] == -1 or (target[place] == 0 and place == axis):
            yield node
            return
        sizes[place] = -1
        shape = self.constant(node, torch.tensor(sizes))
        yield replace(node, inputs=(node.inputs[0], shape))

    def expand(self, node: Node) -> Iterator[Node]:
        """An extent of 1 keeps the operand's."""
        axis, target = self.axis(node.inputs[0]), self.stated(node, 1)
        few = self.few.values[node.inputs[0]]
        if axis is None or target is None or few is None:
            yield node
            return
        target[axis + len(target) - few.dim()] = 1
        yield replace(node, inputs=(node.inputs[0], self.constant(node, torch.tensor(target))))

    def resize(self, node: Node) -> Iterator[Node]:
        """``sizes`` (input 3) of all axes: along the images, the actual number."""
        axis, sizes = self.axis(node.inputs[0]), self.stated(node, 3)
        if axis is None or sizes is None or "axes" in node.attributes:
            yield node
            return
        joined = yield from self.with_images(node, node.inputs[0], axis, sizes)
        yield replace(node, inputs=(*node.inputs[:3], joined))

    def concat(self, node: Node) -> Iterator[Node]:
        """Constants that are the same for every image are repeated."""
        axes = {name: self.axis(name) for name in node.inputs}
        carrier = next((name for name in node.inputs if axes[name] is not None), "")
        axis, inputs = axes.get(carrier), []
        for name in node.inputs:
            value = self.constants.get(name)
            if value is None or axis is None or axis == node.attributes["axis"] % value.dim():
                inputs.append(name)
            else:
                inputs.append((yield from self.repeated(node, value, carrier, axis)))
        yield replace(node, inputs=tuple(inputs))

    def repeated(
        self, node: Node, value: Tensor, carrier: str, axis: int
    ) -> Generator[Node, None, str]:
        """Nodes that repeat a constant for every image; returns their output."""
        one = value.narrow(axis, 0, 1)
        single = self.constant(node, one if torch.equal(one.expand_as(value), value) else value)
        shape = yield from self.with_images(node, carrier, axis, [1] * value.dim())
        yield Node("Expand", "", node.name, (single, shape), (f"{single}/all",), {}, _OPSET)
        return f"{single}/all"

    def with_images(
        self, node: Node, carrier: str, axis: int, sizes: list[int]
    ) -> Generator[Node, None, str]:
        """Nodes that write ``sizes`` with the number of images on an axis; returns their output."""
        name = f"{node.outputs[0]}/images{len(self.constants)}"
        span = {"start": axis, "end": axis + 1}
        yield Node("Shape", "", node.name, (carrier,), (f"{name}/count",), span, _OPSET)
        parts = [f"{name}/count"]
        if sizes[:axis]:
            parts.insert(0, self.constant(node, torch.tensor(sizes[:axis])))
        if sizes[axis + 1 :]:
            parts.append(self.constant(node, torch.tensor(sizes[axis + 1 :])))
        yield Node("Concat", "", node.name, tuple(parts), (name,), {"axis": 0}, _OPSET)
        return name


def _place(
    shape: tuple[int, ...], axis: int, sizes: list[int], batch: int, last: bool
) -> int | None:
    """Where the images are after a reshape of ``shape``, with them on ``axis``, to ``sizes``.

    Axes of the result that share elements with ``axis``, or border on it, can hold them. A guess
    where several can: an axis of just the images, then any but the last one (which are features).
    """
    start = math.prod(shape[:axis])
    end = start * shape[axis]
    ranked = []
    for i, size in enumerate(sizes):
        low = math.prod(sizes[:i])
        if size % batch == 0 and low <= end and low * size >= start:
            order = -i if last else i
            ranked.append(
                (size != batch, 0 < i == len(sizes) - 1, size != batch and low != start, order, i)
            )
    return min(ranked)[-1] if ranked else None
