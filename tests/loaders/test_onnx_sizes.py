"""What operators say of the size of their results is true, and spares torch the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from modelaudit.loaders.onnx_graph.call import Call, broadcast
from modelaudit.loaders.onnx_graph.registry import find
from modelaudit.loaders.onnx_graph.size import require_sizes

Shape = tuple[int, ...]


@pytest.mark.parametrize(
    ("operator", "opset", "shapes", "attributes", "bound"),
    [
        ("Add", 13, [(2, 1), (3,)], {}, (2, 3)),
        ("Sum", 13, [(2, 1), (3,), (4, 1, 1)], {}, (4, 2, 3)),
        ("Div", 13, [(5,), ()], {}, (5,)),
        ("PRelu", 16, [(2, 3, 4), (3, 1)], {}, (2, 3, 4)),
        ("Add", 6, [(2, 3, 4), (3,)], {"broadcast": 1, "axis": 1}, (2, 3, 4)),
        ("Add", 6, [(1, 3), (4,)], {"broadcast": 1, "axis": 0}, (4, 3)),
        ("MatMul", 13, [(3, 4), (4, 6)], {}, (3, 6)),
        ("MatMul", 13, [(2, 1, 3, 4), (5, 4, 6)], {}, (2, 5, 3, 6)),
        ("MatMul", 13, [(4,), (2, 4, 6)], {}, (2, 6)),
        ("MatMul", 13, [(2, 3, 4), (4,)], {}, (2, 3)),
        ("MatMul", 13, [(4,), (4,)], {}, ()),
        ("MatMul", 13, [(3, 0), (0,)], {}, (3,)),
        ("MatMul", 13, [(0,), (2, 0, 6)], {}, (2, 6)),
        ("MatMul", 13, [(3, 0), (0, 6)], {}, (3, 6)),
        ("Gemm", 13, [(3, 4), (6, 4), (6,)], {"transB": 1}, (3, 6)),
        ("Gemm", 13, [(4, 3), (4, 6), (3, 1)], {"transA": 1}, (3, 6)),
        ("Gemm", 13, [(3, 4), (4, 1), (3, 5)], {"alpha": 0.5}, (3, 5)),
        ("Conv", 13, [(2, 3, 8, 9), (5, 3, 3, 3), (5,)], {"pads": [1, 0, 1, 0]}, (2, 5, 10, 9)),
        ("Conv", 13, [(2, 4, 9), (6, 2, 3)], {"auto_pad": "SAME_UPPER", "group": 2}, (2, 6, 11)),
        ("BatchNormalization", 15, [(2, 3, 4), *[(3,)] * 4], {}, (2, 3, 4)),
        ("InstanceNormalization", 6, [(2, 3, 4), (3,), (3,)], {}, (2, 3, 4)),
        ("LayerNormalization", 17, [(2, 3, 4), (3, 1)], {}, (2, 3, 4)),
        ("GroupNormalization", 21, [(2, 4, 5), (4,), (4,)], {"num_groups": 2}, (2, 4, 5)),
        ("Concat", 13, [(2, 3), (2, 4)], {"axis": 1}, (14,)),
    ],
)
def test_no_result_is_larger(
    operator: str, opset: int, shapes: Sequence[Shape], attributes: dict[str, Any], bound: Shape
) -> None:
    operands = [torch.rand(shape) for shape in shapes]
    call = Call(attributes, operands, [False] * len(shapes), 1, opset)
    builder = find("", operator, opset)
    assert builder is not None
    result = builder(call)(*operands)
    assert result.numel() <= math.prod(bound) == call.bound


def test_a_large_product_of_nothing_is_refused() -> None:
    """Operands without elements have a result with many."""
    operands = [torch.empty(2**40, 0), torch.empty(0)]
    builder, call = find("", "MatMul", 13), Call({}, operands, [False] * 2, 1, 13)
    assert builder is not None
    product = builder(call)
    with pytest.raises(ValueError, match="at most 2147483648 elements"):
        require_sizes(product, operands, call.bound)


def test_shapes_that_do_not_agree_have_the_larger_extents() -> None:
    assert broadcast([(2, 3), (4, 1, 5)]) == [4, 2, 5]
    assert broadcast([]) == []


def test_a_bound_spares_the_work() -> None:
    large, worked_out = torch.zeros(1).expand(2**20), []

    def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        worked_out.append((a.shape, b.shape))
        return a + b

    require_sizes(add, [large, large], bound=2**20)
    assert not worked_out
    require_sizes(add, [large, large])
    assert len(worked_out) == 1


def test_a_bound_that_is_too_large_is_not_the_answer() -> None:
    large = torch.zeros(1).expand(2**20)
    require_sizes(torch.add, [large, large], bound=2**40)
    with pytest.raises(ValueError, match="at most 2147483648 elements"):
        require_sizes(torch.outer, [large, large], bound=2**40)
