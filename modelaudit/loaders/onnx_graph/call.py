"""What an operator sees of its node: attributes and the operands of the current run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# Elements of one tensor: 8 GiB of float32. No layer of a classifier comes near.
MOST_ELEMENTS = 2**31


def broadcast(shapes: Iterable[Sequence[int]]) -> list[int]:
    """The largest extent of every axis, the last ones aligned; whether they agree is not checked.

    That is what NumPy's rule allows at most.
    """
    axes = itertools.zip_longest(*(tuple(shape)[::-1] for shape in shapes), fillvalue=1)
    return [max(extents) for extents in axes][::-1]


class Call:
    """One node together with its operands, given to the operator's builder.

    A *fixed* operand depends on constants and on the shape of the graph's input only, so what is
    read from it stays true for every later input of the same shape. Reading any other operand's
    value is allowed, but makes the call *volatile*: its graph is then resolved anew on every run.

    Args:
        attributes: the node's attributes as Python values (tensors as torch tensors).
        operands: the node's inputs, ``None`` where an optional one is left out.
        fixed: for each operand whether it is fixed.
        outputs: number of outputs, counted up to the last one that the graph names.
        opset: version of the operator set that the node belongs to.
        dtypes: element types of the operands where the graph says another than torch computes with.

    Attributes:
        bound: elements that no result exceeds, where the builder says so.
    """

    def __init__(
        self,
        attributes: dict[str, Any],
        operands: Sequence[Tensor | None],
        fixed: Sequence[bool],
        outputs: int,
        opset: int,
        dtypes: Sequence[torch.dtype | None] = (),
    ) -> None:
        self.operands = list(operands)
        self.outputs = outputs
        self.opset = opset
        self.volatile = False
        self.bound: int | None = None
        self.taken: set[int] = set()
        self.held: dict[int, torch.dtype] = {}
        self._attributes = attributes
        self._fixed = fixed
        self._dtypes = dtypes

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        return self._attributes.get(name, default)

    def with_attributes(self, **extra: Any) -> Call:
        """The same call with further attributes, to express an old version by a newer one."""
        call = Call(
            self._attributes | extra,
            self.operands,
            self._fixed,
            self.outputs,
            self.opset,
            self._dtypes,
        )
        call.taken, call.volatile, call.held = self.taken, self.volatile, self.held
        return call

    def has(self, index: int) -> bool:
        """Whether the operand is there."""
        return index < len(self.operands) and self.operands[index] is not None

    def fixed(self, index: int) -> bool:
        """Whether the operand is there and fixed."""
        return self.has(index) and self._fixed[index]

    def operand(self, index: int) -> Tensor:
        """The operand, for its shape, dtype and device; it is still passed on every run."""
        value = self.operands[index]
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    def dtype(self, index: int = 0) -> torch.dtype:
        """Element type of the operand, as the graph says it."""
        given = self._dtypes[index] if index < len(self._dtypes) else None
        return given or self.operand(index).dtype

    def hold(self, index: int, dtype: torch.dtype) -> None:
        """Say that an output is of type ``dtype`` in the graph, but returned as float.

        That lets gradients pass through quantised values, which are integers; see ``held.py``.
        """
        self.held[index] = dtype

    def sized(self, sizes: Sequence[int]) -> list[int]:
        """Sizes of a tensor that is about to be made, which the operands' sizes do not bound.

        Raises:
            ValueError: a negative size, or more than ``MOST_ELEMENTS`` elements.
        """
        if any(n < 0 for n in sizes) or math.prod(sizes) > MOST_ELEMENTS:
            raise ValueError(
                f"expected a tensor of at most {MOST_ELEMENTS} elements, found shape {list(sizes)}"
            )
        return list(sizes)

    def at_most(self, sizes: Sequence[int]) -> None:
        """Say which size no result exceeds, so that it need not be worked out."""
        self.bound = math.prod(sizes)

    def at_most_broadcast(self) -> None:
        """Say that no result is larger than the operands broadcast together."""
        self.at_most(broadcast(x.shape for x in self.operands if x is not None))

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of the operand."""
        return tuple(self.operand(index).shape)

    def rank(self, index: int = 0) -> int:
        """Number of dimensions of the operand."""
        return self.operand(index).dim()

    def axis(self, default: int | None = None, name: str = "axis") -> int:
        """An axis attribute of the first operand, made non-negative."""
        axis = self.attribute(name, default)
        return int(axis) % max(self.rank(), 1)

    def drop(self, index: int) -> None:
        """Do not pass the operand on a run: the operator needs no more than its shape or dtype."""
        self.taken.add(index)

    def take(self, index: int) -> Tensor:
        """The operand's value, read now and not passed on a run."""
        self.volatile |= not self._fixed[index]
        self.drop(index)
        return self.operand(index).detach()

    def setting(self, index: int, name: str, default: Any = None) -> Any:
        """A setting that older opsets hold as an attribute and newer ones as an input.

        Returns:
            A Python number or list of numbers, or ``default`` where neither is there.
        """
        if self.has(index):
            return self.take(index).tolist()
        self.drop(index)
        return self.attribute(name, default)

    def scalar(self, index: int, name: str, default: Any = None) -> Any:
        """Like :meth:`setting`, for one number that may be stored as a tensor of one element."""
        value = self.setting(index, name, default)
        while isinstance(value, list):
            (value,) = value
        return value

    def arguments(self) -> list[int]:
        """Indices of the operands that are passed on every run."""
        return [i for i in range(len(self.operands)) if i not in self.taken]

    @property
    def device(self) -> torch.device:
        """Where the first operand lives."""
        return self.operand(0).device
