"""A node of the graph as plain Python data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Node:
    """One operator application.

    Attributes:
        operator, domain, opset: what to compute, and by which version of the specification.
        name: as in the file; may be empty.
        inputs, outputs: names of values; an empty name is an optional value left out.
        attributes: Python values; tensors are torch tensors, branches are :class:`Subgraph`.
    """

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def __str__(self) -> str:
        label = self.name or "writing " + ", ".join(self.outputs)
        domain = f"{self.domain}." if self.domain else ""
        return f"{domain}{self.operator} (opset {self.opset}, node {label})"

    def reads(self) -> Iterator[str]:
        """Names of all values that the node needs, also those that its branches refer to."""
        yield from (name for name in self.inputs if name)
        for value in self.attributes.values():
            if isinstance(value, Subgraph):
                yield from value.reads()


@dataclass(frozen=True)
class Subgraph:
    """A branch or the body of a loop: nodes that also see the values of the graph around them."""

    nodes: list[Node]
    constants: dict[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def reads(self) -> Iterator[str]:
        """Names of the values of the graph around that are needed."""
        own = {*self.inputs, *self.constants}
        for node in self.nodes:
            yield from (name for name in node.reads() if name not in own)
            own.update(node.outputs)
        yield from (name for name in self.outputs if name not in own)
