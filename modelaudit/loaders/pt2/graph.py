"""The torch module that runs the nodes of an exported graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from modelaudit.loaders.outputs import require_matrix

# Where the value of a node goes: a name, nowhere, or the values of a list to several of them.
Target = str | None | tuple["Target", ...]


@dataclass(frozen=True)
class Ref:
    """The value that an earlier node, a weight or the image has under this name."""

    name: str


class OnTheImagesDevice:
    """Stands for any device that the file names: the one where the images are is used instead."""


@dataclass(frozen=True)
class Node:
    """One operator call.

    Attributes:
        function: the operator.
        arguments, keywords: constants, :class:`Ref`, :class:`Graph`, :class:`OnTheImagesDevice`, or
            lists of them.
        outputs: where the result goes.
    """

    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    outputs: Target

    def reads(self) -> set[str]:
        """The names of the values that the call needs."""
        return references([self.arguments, self.keywords])


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run.

    Attributes:
        inputs: names that the caller gives values to.
        outputs: constants and :class:`Ref`; as a tuple of results.
        single: whether the only output is returned as it is, not as a tuple.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Any, ...]
    single: bool = False
    finished: tuple[tuple[str, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "finished", _last_uses(self.nodes, references(self.outputs)))

    def run(self, values: dict[str, Any], device: torch.device) -> Any:
        """The outputs, for values by name, which are used up."""
        for node, finished in zip(self.nodes, self.finished, strict=True):
            arguments = [_fill(argument, values, device) for argument in node.arguments]
            keywords = {key: _fill(v, values, device) for key, v in node.keywords.items()}
            _store(node.outputs, node.function(*arguments, **keywords), values)
            for name in finished:
                del values[name]
        results = tuple(_fill(output, values, device) for output in self.outputs)
        return results[0] if self.single else results


class ExportedModule(nn.Module):
    """An exported program as a differentiable module ``[B, ...] -> [B, K]``.

    Args:
        graph: whose inputs are the image and the weights.
        weights: values by the names that the graph gives them; they move with ``.to``.
        image: the name of the image batch.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Any], image: str) -> None:
        super().__init__()
        self.graph = graph
        self.image = image
        self._buffer_names = {}
        self._constants = {k: v for k, v in weights.items() if not isinstance(v, Tensor)}
        for index, (name, value) in enumerate(weights.items()):
            if isinstance(value, Tensor):
                self._buffer_names[name] = f"weight{index}"
                self.register_buffer(f"weight{index}", value)

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]``; raises ``ValueError`` if there are none of that shape."""
        values = {name: self._buffers[key] for name, key in self._buffer_names.items()}
        # Operators that work in place may change the image, which belongs to the caller.
        values = {**values, **self._constants, self.image: x.clone()}
        return require_matrix(self.graph.run(values, x.device), len(x))


def references(value: Any) -> set[str]:
    """Names that are referred to in nested arguments; a graph's are its own."""
    if isinstance(value, Ref):
        return {value.name}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return set().union(*(references(part) for part in value))
    return set()


def _fill(value: Any, values: Mapping[str, Any], device: torch.device) -> Any:
    """An argument with everything that stands for something else replaced by it."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, list):
        return [_fill(part, values, device) for part in value]
    if isinstance(value, OnTheImagesDevice):
        return device
    if isinstance(value, Graph):
        return lambda *given: value.run(dict(zip(value.inputs, given, strict=True)), device)
    return value


def _store(target: Target, result: Any, values: dict[str, Any]) -> None:
    if target is None:
        return
    if isinstance(target, str):
        values[target] = result
        return
    for part, value in zip(target, result, strict=True):
        _store(part, value, values)


def stored_names(target: Target) -> list[str]:
    """The names that a node gives values to."""
    if target is None or isinstance(target, str):
        return [target] if target else []
    return [name for part in target for name in stored_names(part)]


def _last_uses(nodes: Sequence[Node], kept: set[str]) -> tuple[tuple[str, ...], ...]:
    """For each node the names of the values that no later node reads."""
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys([*node.reads(), *stored_names(node.outputs)], index))
    finished: list[list[str]] = [[] for _ in nodes]
    for name, index in last.items():
        if name not in kept:
            finished[index].append(name)
    return tuple(tuple(names) for names in finished)
