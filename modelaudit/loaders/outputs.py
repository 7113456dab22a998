"""Which of a model's outputs are its scores."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def first_matrix(outputs: object, batch: int) -> Tensor | None:
    """The first tensor ``[batch, K]`` among nested tuples, lists and dicts, in their order."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.ndim == 2 and len(outputs) == batch else None
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        for output in outputs:
            found = first_matrix(output, batch)
            if found is not None:
                return found
    return None


def require_matrix(outputs: object, batch: int) -> Tensor:
    """:func:`first_matrix`, which must exist.

    Raises:
        ValueError: there is none; the message gives the shape that there is.
    """
    found = first_matrix(outputs, batch)
    if found is None:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"outputs [{batch}, K] expected, got {shape}")
    return found
