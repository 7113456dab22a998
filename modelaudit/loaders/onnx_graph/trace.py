"""One pass over the nodes: run each, and record how to run it again on an input of this shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph import control
from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.held import conversion
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.plan import Plan
from modelaudit.loaders.onnx_graph.registry import Function, find
from modelaudit.loaders.onnx_graph.size import require_sizes, require_small_result


class Trace:
    """Runs nodes on actual values and records a :class:`Plan`.

    A value is *fixed* when it depends on constants and on the input's shape only.

    Args:
        constants: values known before the run, by name.
        inputs: values of the graph's inputs, by name.

    Attributes:
        held: what type a value is in the graph, where it is held as a float; see ``held.py``.
        unrolled: nodes run inside loops so far.
    """

    def __init__(self, constants: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        self.plan = Plan()
        self.volatile = False
        self.values: dict[str, Tensor | None] = {**constants, **inputs, "": None}
        self.fixed = {*constants, ""}
        self.held: dict[str, torch.dtype] = {}
        self.unrolled = 0
        self._device = next((x.device for x in inputs.values()), torch.device("cpu"))
        self._slots: dict[str, int] = {name: self.plan.new_slot() for name in inputs}
        self.plan.inputs = list(self._slots.values())

    def run(self, node: Node, finished: Sequence[str] = ()) -> None:
        """Run one node; ``finished`` are names of values that no later node reads.

        Raises:
            ModelFileError: torch refuses the node's operands.
        """
        steer = control.OPERATORS.get(node.operator) if not node.domain else None
        try:
            steer(self, node) if steer else self._run(node, finished)
        except (ModelFileError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            shapes = [_describe(self.values.get(name)) for name in node.inputs]
            raise ModelFileError(
                f"ONNX node {node} failed on inputs {', '.join(shapes)}: {error}; check that the "
                "model runs in ONNX Runtime and export it again with a dynamic batch"
            ) from error
        for name in finished:
            self.values.pop(name, None)

    def finish(self, outputs: Sequence[str]) -> list[Tensor]:
        """Set the plan's outputs and return their values."""
        names = list(outputs)
        for index, name in enumerate(outputs):
            if name in self.held:
                dtype, names[index] = self.held[name], f"{name}/integers"
                self.apply(lambda x, dtype=dtype: x.to(dtype), [name], names[index])
        self.plan.outputs = [self._slot(name) for name in names]
        values = [self.values[name] for name in names]
        return [value for value in values if value is not None]

    def know(self, name: str) -> Tensor:
        """A value that decides what is run: unless it is fixed, the plan holds for one run."""
        self.volatile |= name not in self.fixed
        value = self.values[name]
        if value is None:
            raise ValueError(f"the value '{name}' is missing")
        return value

    def define(self, name: str, value: Tensor) -> None:
        """Give a name a fixed value."""
        self._forget((name,))
        self.values[name] = value
        self.fixed.add(name)

    def bind(self, source: str, target: str) -> None:
        """Give a value another name."""
        self.run(Node("Identity", "", "", (source,), (target,), {}, 1))

    def apply(self, function: Function, inputs: Sequence[str], output: str) -> None:
        """Run a torch function as if it were a node."""
        node = Node("", "", "", tuple(inputs), (output,), {}, 1)
        self._execute(node, function, range(len(inputs)), {})

    def _run(self, node: Node, finished: Sequence[str]) -> None:
        operands = [self.values[name] for name in node.inputs]
        fixed = [name in self.fixed for name in node.inputs]
        meant = [self.held.get(name) for name in node.inputs]
        builder = find(node.domain, node.operator, node.opset)
        if builder is None:
            raise ValueError("no such operator in the table")
        converted = conversion(node, operands, meant)
        seen, dtypes = converted.operands(operands, meant)
        call = Call(node.attributes, seen, fixed, len(node.outputs), node.opset, dtypes)
        with torch.inference_mode(False), torch.no_grad():
            function = builder(call)
        self.volatile |= call.volatile
        indices = call.arguments()
        function = converted.apply(function, indices)
        held = {**converted.held, **call.held}
        self._execute(node, function, indices, held, finished, call.bound)

    def _execute(
        self,
        node: Node,
        function: Function,
        indices: Sequence[int],
        held: dict[int, torch.dtype],
        finished: Sequence[str] = (),
        bound: int | None = None,
    ) -> None:
        """Run the function, now if all its operands are fixed, and on every run otherwise."""
        names = [node.inputs[i] for i in indices]
        if all(name in self.fixed for name in names):
            operands = _on_one_device([self.values[name] for name in names])
            with torch.inference_mode(False), torch.no_grad():
                require_sizes(function, operands, bound)
                results = _as_tuple(function(*operands))
            results = tuple(x.to(held.get(i, x.dtype)) for i, x in enumerate(results))
            self._store(node, results)
            self.fixed.update(node.outputs)
            return
        slots = tuple(self._slot(name) for name in names)
        operands = [self._operand(name) for name in names]
        require_sizes(function, operands, bound)
        result = function(*operands)
        self._store(node, _as_tuple(result))
        self.held.update({node.outputs[i]: dtype for i, dtype in held.items()})
        target = self._target(node, result)
        cleared = tuple(self._slots[name] for name in finished if name in self._slots)
        self.plan.steps.append((function, slots, target, cleared))

    def _store(self, node: Node, results: Sequence[Tensor]) -> None:
        require_small_result(results)
        self._forget(node.outputs)
        self.values.update(zip(node.outputs, results, strict=False))

    def _forget(self, names: Sequence[str]) -> None:
        """What was known of values that a loop writes again."""
        for name in names:
            self._slots.pop(name, None)
            self.held.pop(name, None)
        self.fixed.difference_update(name for name in names if name)

    def _target(self, node: Node, result: Any) -> int | slice:
        """New slots for the results of a node: one, or a run of them."""
        if isinstance(result, Tensor):
            self._slots[node.outputs[0]] = self.plan.new_slot()
            return self._slots[node.outputs[0]]
        slots = [self.plan.new_slot() for _ in result]
        self._slots.update(zip(node.outputs, slots, strict=False))
        return slice(slots[0], slots[-1] + 1)

    def _slot(self, name: str) -> int:
        """The slot of a value; a fixed value gets one when it is first needed on every run."""
        if name not in self._slots:
            self._slots[name] = self.plan.new_slot(self._operand(name))
        return self._slots[name]

    def _operand(self, name: str) -> Tensor | None:
        value = self.values[name]
        if value is not None and name in self.fixed and value.device != self._device:
            value = self.values[name] = value.to(self._device)
        return value


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _on_one_device(values: list[Tensor | None]) -> list[Tensor | None]:
    """Fixed values are on the CPU unless one of them is a weight that is elsewhere."""
    devices = {v.device for v in values if v is not None}
    other = next((device for device in devices if device.type != "cpu"), None)
    if other is None:
        return values
    return [None if v is None else v.to(other) for v in values]


def _describe(value: Tensor | None) -> str:
    return "-" if value is None else str(list(value.shape))
