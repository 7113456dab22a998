"""The torch module that executes an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modelaudit.loaders.onnx_graph.held import rounds
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.plan import Plan
from modelaudit.loaders.onnx_graph.trace import Trace

# Plans are kept for this many input shapes: a search uses one batch size and a smaller last batch.
_KEPT_PLANS = 16


class Constants(nn.Module):
    """Named constants of a graph: floats as buffers that move with ``.to``, the rest on the CPU.

    Integers are mostly shapes and indices; while they stay on the CPU, reading them does not wait
    for the accelerator.

    Attributes:
        version: grows when the buffers are replaced, so that plans know that they are outdated.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.version = 0
        self._buffer_names: dict[str, str] = {}
        self._integers: dict[str, Tensor] = {}
        for index, (name, value) in enumerate(values.items()):
            if value.is_floating_point():
                self._buffer_names[name] = f"constant{index}"
                self.register_buffer(self._buffer_names[name], value)
            else:
                self._integers[name] = value

    def values(self) -> dict[str, Tensor]:
        """All constants by the names that the graph uses."""
        floats = {name: self.get_buffer(key) for name, key in self._buffer_names.items()}
        return {**floats, **self._integers}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Constants:
        self.version += 1
        return super()._apply(fn, recurse)


class OnnxGraph(nn.Module):
    """Executes the nodes of an ONNX graph; differentiable, frozen, any batch size.

    The first call with an input shape runs node by node and records a plan for that shape, in
    which everything that does not depend on the input's values is computed already; later calls
    with that shape run the plan. Where a shape depends on values (NonZero and the like), every
    call runs node by node.

    Args:
        nodes: in topological order.
        constants: values of all names that are neither inputs nor written by a node.
        inputs, outputs: names of the graph's inputs and outputs.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        constants: Constants,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.nodes = prune(nodes, outputs)
        self.constants = constants
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._finished = last_uses(self.nodes, self.outputs)
        self._plans: dict[Any, Plan] = {}

    @property
    def quantised(self) -> bool:
        """Whether values are rounded on the way, so that rounding errors may grow to one step."""
        return any(rounds(node.operator) for node in self.nodes)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Tensors in the order of the graph's inputs -> its output, or a tuple of several.

        Raises:
            ModelFileError: a node does not accept the values that reach it; the message names it.
        """
        key = (self.constants.version, *[(x.shape, x.dtype, x.device) for x in inputs])
        plan = self._plans.get(key)
        results = self._trace(key, inputs) if plan is None else plan.run(inputs)
        return results[0] if len(results) == 1 else tuple(results)

    def without(self, node: Node) -> OnnxGraph:
        """The same graph, on the same constants, with one node replaced by the identity."""
        identity = Node("Identity", "", node.name, node.inputs[:1], node.outputs[:1], {}, 1)
        nodes = [identity if other is node else other for other in self.nodes]
        return OnnxGraph(nodes, self.constants, self.inputs, self.outputs)

    def _trace(self, key: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        trace = Trace(self.constants.values(), dict(zip(self.inputs, inputs, strict=True)))
        for node, finished in zip(self.nodes, self._finished, strict=True):
            trace.run(node, finished)
        results = trace.finish(self.outputs)
        if not trace.volatile:
            self._plans = {k: p for k, p in self._plans.items() if k[0] == self.constants.version}
            if len(self._plans) >= _KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = trace.plan
        return results

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}


def prune(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads())
            kept.append(node)
    return kept[::-1]


def last_uses(nodes: Sequence[Node], outputs: Sequence[str]) -> list[tuple[str, ...]]:
    """For each node the names of the values that no later node reads."""
    last: dict[str, int] = {}
    kept = set(outputs)
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys((*node.reads(), *node.outputs), index))
    finished: list[list[str]] = [[] for _ in nodes]
    for name, index in last.items():
        if name and name not in kept:
            finished[index].append(name)
    return [tuple(names) for names in finished]
