"""Half-precision graphs, widened to float32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from modelaudit.loaders.onnx_graph.functions import all_nodes

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def widen(model: onnx.ModelProto) -> bool:
    """Turn every 16-bit float of the model into float32, in place.

    Returns:
        Whether there were any.
    """
    values = [*model.graph.input, *model.graph.output]
    found = _widen_tensors(model.graph.initializer)
    for node in [*all_nodes(model.graph.node), *(n for f in model.functions for n in f.node)]:
        found |= _widen_node(node)
    for value in values:
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            found = True
    if found:
        del model.graph.value_info[:]
    return found


def _widen_node(node: onnx.NodeProto) -> bool:
    found = False
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            found |= _widen_tensors([attribute.t])
        elif attribute.type == onnx.AttributeProto.GRAPH:
            found |= _widen_tensors(attribute.g.initializer)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALF:
            attribute.i = onnx.TensorProto.FLOAT
            found = True
    return found


def _widen_tensors(tensors: Iterable[onnx.TensorProto]) -> bool:
    found = False
    for tensor in tensors:
        if tensor.data_type in _HALF:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
            found = True
    return found
