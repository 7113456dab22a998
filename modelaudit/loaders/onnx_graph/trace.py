"""One pass over the nodes: run each, and record how to run it again on an input of this shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.node import Node, Subgraph
from modelaudit.loaders.onnx_graph.registry import Function, find

# A torch function, the slots of its operands, where its results go, and which slots to clear.
Step = tuple[Function, tuple[int, ...], "int | slice", tuple[int, ...]]


class Plan:
    """Torch calls that run the graph on inputs of one shape; values live in numbered slots.

    All that depends on constants and on the input's shape only is done already.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.template: list[Tensor | None] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def new_slot(self, value: Tensor | None = None) -> int:
        """A slot that holds ``value`` at the start of every run."""
        self.template.append(value)
        return len(self.template) - 1

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Values of the outputs for these inputs."""
        values: list[Any] = self.template.copy()
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        for function, operands, target, finished in self.steps:
            values[target] = function(*[values[i] for i in operands])
            for i in finished:
                values[i] = None
        return [values[i] for i in self.outputs]


class Trace:
    """Runs nodes on actual values and records a :class:`Plan`.

    A value is *fixed* when it depends on constants and on the input's shape only.

    Args:
        constants: values known before the run, by name.
        inputs: values of the graph's inputs, by name.
    """

    def __init__(self, constants: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        self.plan = Plan()
        self.volatile = False
        self.values: dict[str, Tensor | None] = {**constants, **inputs, "": None}
        self.fixed = {*constants, ""}
        self._device = next((x.device for x in inputs.values()), torch.device("cpu"))
        self._slots: dict[str, int] = {name: self.plan.new_slot() for name in inputs}
        self.plan.inputs = list(self._slots.values())

    def run(self, node: Node, finished: Sequence[str] = ()) -> None:
        """Run one node; ``finished`` are names of values that no later node reads.

        Raises:
            ModelFileError: torch refuses the node's operands.
        """
        try:
            self._branch(node) if node.operator == "If" else self._run(node, finished)
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
        self.plan.outputs = [self._slot(name) for name in outputs]
        values = [self.values[name] for name in outputs]
        return [value for value in values if value is not None]

    def _run(self, node: Node, finished: Sequence[str]) -> None:
        operands = [self.values[name] for name in node.inputs]
        fixed = [name in self.fixed for name in node.inputs]
        builder = find(node.domain, node.operator, node.opset)
        if builder is None:
            raise ValueError("no such operator in the table")
        call = Call(node.attributes, operands, fixed, len(node.outputs), node.opset)
        with torch.inference_mode(False), torch.no_grad():
            function = builder(call)
        self.volatile |= call.volatile
        indices = call.arguments()
        if all(fixed[i] for i in indices):
            with torch.inference_mode(False), torch.no_grad():
                result = function(*_on_one_device([operands[i] for i in indices]))
            self.fixed.update(node.outputs)
            self._store(node, result)
            return
        slots = tuple(self._slot(node.inputs[i]) for i in indices)
        result = function(*[self._operand(node.inputs[i]) for i in indices])
        target = self._target(node, result)
        cleared = tuple(self._slots[name] for name in finished if name in self._slots)
        self.plan.steps.append((function, slots, target, cleared))
        self._store(node, result)

    def _branch(self, node: Node) -> None:
        """Run the branch of ``If`` that the condition chooses, in place of the node."""
        condition = self.values[node.inputs[0]]
        self.volatile |= node.inputs[0] not in self.fixed
        branch: Subgraph = node.attributes["then_branch" if condition else "else_branch"]
        self.values.update(branch.constants)
        self.fixed.update(branch.constants)
        for inner in branch.nodes:
            self.run(inner)
        for source, target in zip(branch.outputs, node.outputs, strict=True):
            self.run(Node("Identity", "", node.name, (source,), (target,), {}, 1))

    def _store(self, node: Node, result: Any) -> None:
        results = (result,) if isinstance(result, Tensor) else result
        self.values.update(zip(node.outputs, results, strict=False))

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


def _on_one_device(values: list[Tensor | None]) -> list[Tensor | None]:
    """Fixed values are on the CPU unless one of them is a weight that is elsewhere."""
    devices = {v.device for v in values if v is not None}
    other = next((device for device in devices if device.type != "cpu"), None)
    if other is None:
        return values
    return [None if v is None else v.to(other) for v in values]


def _describe(value: Tensor | None) -> str:
    return "-" if value is None else str(list(value.shape))
