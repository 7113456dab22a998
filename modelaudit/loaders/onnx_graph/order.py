"""The order of nodes: the specification wants it topological, some tools do not care."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those whose results it reads, in place, and otherwise keep the order.

    ONNX Runtime sorts too, so that files that it and its converters write may need it. Nodes in a
    cycle stay behind the others.
    """
    nodes = list(graph.node)
    writers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needed = [{writers[name] for name in _reads(node) if name in writers} for node in nodes]
    if all(max(before, default=-1) < index for index, before in enumerate(needed)):
        return
    readers: list[list[int]] = [[] for _ in nodes]
    for index, before in enumerate(needed):
        for other in before:
            readers[other].append(index)
    ready = [index for index, before in enumerate(needed) if not before]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            needed[reader].discard(index)
            if not needed[reader]:
                heapq.heappush(ready, reader)
    placed = set(order)
    order += [index for index in range(len(nodes)) if index not in placed]
    sorted_nodes = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(sorted_nodes)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node or the graphs inside it read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)
        yield from (value.name for value in attribute.g.output)
