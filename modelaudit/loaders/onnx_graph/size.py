"""Refuse tensors of absurd size before torch tries to make them.

Operators whose result the operands' sizes do not bound (Expand, Range, Pad ...) ask
:meth:`Call.sized` themselves; here is what needs no knowledge of the operator. The usual ones say
:meth:`Call.at_most`, because torch imports half of its compiler (a second) to work shapes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import MOST_ELEMENTS
from modelaudit.loaders.onnx_graph.registry import Function


def require_sizes(
    function: Function, operands: Sequence[Tensor | None], bound: int | None = None
) -> None:
    """Check the result of broadcasting, products and the like, which are made of many operands.

    No result has more elements than all pairs (triples ...) of the operands' elements. Where that
    bound is not enough, torch works the shapes out without data.

    Args:
        bound: elements that no result exceeds; ``None`` if the operator does not say.

    Raises:
        ValueError: the result is too large.
    """
    counts = [x.numel() for x in operands if x is not None]
    most = math.prod(counts) if bound is None else bound
    if len(counts) < 2 or most <= MOST_ELEMENTS:
        return
    try:
        with torch.no_grad():
            result = function(*[None if x is None else x.detach().to("meta") for x in operands])
    except Exception:  # not every function runs without data; then the real run will tell
        return
    require_small_result((result,) if isinstance(result, Tensor) else result)


def require_small_result(results: Sequence[Any]) -> None:
    """Check results; a view may have more elements than there is memory.

    Raises:
        ValueError: one is too large.
    """
    for x in results:
        if x.numel() > MOST_ELEMENTS:
            raise ValueError(
                f"expected a tensor of at most {MOST_ELEMENTS} elements, found shape "
                f"{list(x.shape)}"
            )
