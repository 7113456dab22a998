"""The recorded torch calls that run a graph on inputs of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelaudit.loaders.onnx_graph.registry import Function

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
