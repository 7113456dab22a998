"""ONNX protocol buffers -> Python and torch values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.node import Node, Subgraph
from modelaudit.loaders.onnx_graph.registry import canonical_domain

_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    onnx.TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}
FLOAT8 = {
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
}
# NumPy has none of these types: onnx reads them as types that torch does not know.
_AS_BITS = {torch.bfloat16: np.int16, **dict.fromkeys(FLOAT8, np.uint8)}


def torch_dtype(element_type: int) -> torch.dtype:
    """The torch dtype of an ``onnx.TensorProto.DataType``.

    Raises:
        ModelFileError: torch has no such type (strings, 4-bit and 8-bit floats).
    """
    if element_type not in _DTYPES:
        known = element_type in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(element_type) if known else f"number {element_type}"
        raise ModelFileError(
            f"the graph uses tensors of type {name}, which the importer does not support; "
            "export the model with float32 weights and without quantisation"
        )
    return _DTYPES[element_type]


def to_tensor(proto: onnx.TensorProto) -> Tensor:
    """A tensor of the file as a torch tensor of the same type.

    Raises:
        ModelFileError: a type that torch does not have, or data that do not fill the dimensions.
    """
    dtype = torch_dtype(proto.data_type)
    try:
        if any(n < 0 for n in proto.dims):
            raise ValueError("a dimension is negative")
        array = onnx.numpy_helper.to_array(proto)
    except Exception as error:  # onnx and numpy raise many types
        raise ModelFileError(
            f"cannot read the tensor '{proto.name}' of dimensions {list(proto.dims)}: {error}; its "
            "data do not fit its dimensions, so the file is damaged: copy or export it again"
        ) from error
    bits = np.dtype(_AS_BITS.get(dtype, array.dtype))
    if dtype in _AS_BITS and array.dtype.itemsize == bits.itemsize:
        return torch.from_numpy(np.array(array, order="C").view(bits)).view(dtype)
    return torch.from_numpy(np.array(array, order="C")).to(dtype)


def to_nodes(graph: onnx.GraphProto, opsets: dict[str, int]) -> list[Node]:
    """The nodes of a graph in order, with attributes as Python values."""
    return [_to_node(proto, opsets) for proto in graph.node]


def _to_node(proto: onnx.NodeProto, opsets: dict[str, int]) -> Node:
    domain = canonical_domain(proto.domain)
    return Node(
        operator=proto.op_type,
        domain=domain,
        name=proto.name,
        inputs=_strip(proto.input),
        outputs=_strip(proto.output),
        attributes={a.name: _attribute(a, opsets) for a in proto.attribute},
        opset=opsets.get(domain, 1),
    )


def _strip(names: Any) -> tuple[str, ...]:
    """Names without the empty ones at the end, which stand for left-out optional values."""
    result = list(names)
    while result and not result[-1]:
        result.pop()
    return tuple(result)


def _attribute(proto: onnx.AttributeProto, opsets: dict[str, int]) -> Any:
    if proto.type == onnx.AttributeProto.TENSOR:
        return to_tensor(proto.t)
    if proto.type == onnx.AttributeProto.GRAPH:
        constants = {t.name: to_tensor(t) for t in proto.g.initializer}
        inputs, outputs = (tuple(v.name for v in vs) for vs in (proto.g.input, proto.g.output))
        return Subgraph(to_nodes(proto.g, opsets), constants, inputs, outputs)
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if proto.type == onnx.AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return list(value) if proto.type in _LISTS else value


_LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS)
