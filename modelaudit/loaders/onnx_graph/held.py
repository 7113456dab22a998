"""Values that torch holds in another element type than the graph says.

torch has next to no operators for unsigned integers of 16, 32 and 64 bits: a node computes with
them as int64, and its results are converted back. Quantised values are integers, through which
torch passes no gradient: they are held as floats of integral value, and only a node that neither
knows of quantisation nor merely moves elements gets the integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import onnx
import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.registry import Function

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
# Operators that take held operands and say themselves what they return.
_QUANTISED = {
    "Cast",
    "ConvInteger",
    "DequantizeLinear",
    "MatMulInteger",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QLinearMul",
    "QLinearSigmoid",
    "QuantizeLinear",
    "Shape",
}
# Operators that return elements of their operands, whatever their type.
_MOVING = {
    "Clip",
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Max",
    "MaxPool",
    "Min",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def rounds(operator: str) -> bool:
    """Whether the operator quantises."""
    return operator == "DynamicQuantizeLinear" or operator.startswith("Q")


@dataclass(frozen=True)
class Conversion:
    """What one node needs besides its torch function.

    Attributes:
        before: per operand the type to convert it to on every run, or None.
        after: per output the type to convert it to on every run, or None.
        held: outputs that stay as they are but mean this type.
    """

    before: tuple[torch.dtype | None, ...]
    after: dict[int, torch.dtype]
    held: dict[int, torch.dtype]

    def operands(
        self, given: Sequence[Tensor | None], meant: Sequence[torch.dtype | None]
    ) -> tuple[list[Tensor | None], list[torch.dtype | None]]:
        """The operands as the operator shall see them, and the types that they mean."""
        seen = [convert(x, d) for x, d in zip(given, self.before, strict=True)]
        types = [
            m or (x.dtype if x is not None else None) for x, m in zip(given, meant, strict=True)
        ]
        return seen, types

    def apply(self, function: Function, indices: Sequence[int]) -> Function:
        """The function on operands as the trace has them; ``indices`` of those it takes."""
        before = [self.before[i] for i in indices]
        if not any(before) and not self.after:
            return function

        def run(*operands: Tensor | None) -> Tensor | tuple[Tensor, ...]:
            result = function(*[convert(x, d) for x, d in zip(operands, before, strict=True)])
            if isinstance(result, Tensor):
                return result.to(self.after[0]) if self.after else result
            return tuple(
                x.to(self.after[i]) if i in self.after else x for i, x in enumerate(result)
            )

        return run


def convert(x: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """The operand in the type that its node wants.

    Raises:
        ValueError: an unsigned integer that int64 cannot hold.
    """
    if x is None or dtype is None:
        return x
    converted = x.to(dtype)
    if x.dtype == torch.uint64 and bool((converted < 0).any()):
        raise ValueError("unsigned 64-bit integers beyond 2**63 - 1 are not supported")
    return converted


def conversion(
    node: Node, operands: Sequence[Tensor | None], held: Sequence[torch.dtype | None]
) -> Conversion:
    """How to convert the operands of a node and its results.

    Args:
        node: about to be run.
        operands: its operands.
        held: per operand the type that it means, where it is held as a float.
    """
    before: list[torch.dtype | None] = [None] * len(operands)
    if not any(held) and all(x is None or x.dtype not in _UNSIGNED for x in operands):
        return Conversion(tuple(before), {}, {})
    after: dict[int, torch.dtype] = {}
    outputs: dict[int, torch.dtype] = {}
    moving = node.operator in _MOVING
    for index, (x, meant) in enumerate(zip(operands, held, strict=True)):
        if x is not None and x.dtype in _UNSIGNED and node.operator != "BitCast":
            before[index] = torch.int64
            if node.operator in _QUANTISED:
                continue
            after.update(dict.fromkeys(_like(node, index), x.dtype))
        elif meant is not None and moving:
            alike = _like(node, index)
            outputs.update(dict.fromkeys(alike, meant))
            before = [_float_like(y, meant) for y in operands] if alike else before
        elif meant is not None and node.operator not in _QUANTISED:
            before[index] = meant
    return Conversion(tuple(before), after, outputs)


def _float_like(x: Tensor | None, meant: torch.dtype) -> torch.dtype | None:
    """float32 for a quantised operand that is not held as a float yet."""
    return torch.float32 if x is not None and x.dtype == meant else None


def _like(node: Node, index: int) -> list[int]:
    """Outputs that the specification gives the same type as the operand."""
    inputs, outputs = _types(node.domain, node.operator, node.opset)
    if not inputs or not outputs:
        return []
    wanted = inputs[min(index, len(inputs) - 1)]
    kinds = [outputs[min(i, len(outputs) - 1)] for i in range(len(node.outputs))]
    return [i for i, kind in enumerate(kinds) if kind == wanted]


@cache
def _types(domain: str, operator: str, opset: int) -> tuple[list[str], list[str]]:
    """Names of the types of an operator's inputs and outputs; none where it is not specified."""
    try:
        schema = onnx.defs.get_schema(operator, opset, domain)
    except onnx.defs.SchemaError:
        return [], []
    return [p.type_str for p in schema.inputs], [p.type_str for p in schema.outputs]
