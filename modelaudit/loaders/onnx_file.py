"""ONNX files -> a differentiable torch module, through our own operator table.

The operators are specified at https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnx.inliner
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from modelaudit.loaders.onnx_graph.batch import Adapter, any_batch
from modelaudit.loaders.onnx_graph.build import build_graph, opsets
from modelaudit.loaders.onnx_graph.float16 import widen
from modelaudit.loaders.onnx_graph.graph import OnnxGraph
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.read import infer_shapes, read_model
from modelaudit.loaders.onnx_graph.reference import OnnxRuntimeReference
from modelaudit.loaders.onnx_graph.signature import Signature, read_signature
from modelaudit.loaders.onnx_metadata import read_metadata
from modelaudit.loaders.types import LoadedModel, LoadOptions

# Accepted differences from ONNX Runtime, relative to the largest output. float32 in another order
# of summation differs by about 1e-6 per layer, and by a step where it tips a rounding to 8 bits.
_TOLERANCE, _QUANTISED_TOLERANCE = 1e-3, 0.1
_FLAT = "modelaudit/flat"
_LONGEST_METADATA = 200
_MOST_CHANNELS = 4
_UNKNOWN_EXTENTS = {"NCHW": (3, 224, 224), "NHWC": (224, 224, 3)}
# Operators after a final softmax that leave each image's scores as they are.
_KEEP_SCORES = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze")


def load_onnx(path: Path, options: LoadOptions) -> LoadedModel:
    """Import an ONNX image classifier.

    Args:
        path: the file; external data must be in the same folder.
        options: not needed for ONNX, whose files hold the graph.

    Raises:
        UnsupportedOperatorError: operators that the importer does not implement; all of them.
        ModelFileError: not a valid ONNX file, or not an image classifier with one float input of
            four dimensions and scores ``[B, K]``.
    """
    model, external = read_model(path)
    details = _details(model, external)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    notes = ["The 16-bit weights were widened to float32."] if widen(model) else []
    signature = read_signature(infer_shapes(model))
    notes.extend(signature.notes)
    output = _flatten_output(model, signature)
    graph = build_graph(model, [output])
    shape = _probe_shape(signature)
    graph, adapter, slow = any_batch(graph, shape, signature.batch)
    notes.extend([slow] if slow else [])
    stated, ignored = read_metadata({entry.key: entry.value for entry in model.metadata_props})
    notes.extend(ignored)
    module = adapter(graph)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = module(images)
    return LoadedModel(
        module=module.eval(),
        format="onnx",
        input_shape=signature.input_shape,
        layout=signature.layout,
        num_classes=signature.num_classes or scores.shape[1],
        logits_module=_logits_module(graph, adapter, images, scores),
        reference=OnnxRuntimeReference(path, signature.output, signature.batch, external),
        reference_tolerance=_QUANTISED_TOLERANCE if graph.quantised else _TOLERANCE,
        stated=(stated,),
        notes=tuple(notes),
        details=details,
    )


def _details(model: onnx.ModelProto, external: bool) -> dict[str, str]:
    """Facts about the file, as stored."""
    producer = f"{model.producer_name} {model.producer_version}".strip()
    versions = [f"{d} {v}".strip() for d, v in sorted(opsets(model).items())]
    counts = Counter(node.op_type for node in model.graph.node)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    constants = (value.t for node in model.graph.node for value in node.attribute)
    parameters = sum(
        torch.Size(tensor.dims).numel()
        for tensor in (*model.graph.initializer, *constants)
        if tensor.data_type in floats
    )
    details = {
        "producer": producer or "unknown",
        "opset": ", ".join(versions),
        "ir_version": str(model.ir_version),
        "operators": ", ".join(f"{name}×{count}" for name, count in counts.most_common()),
        "parameters": f"{parameters:,}",
        "arithmetic on the input": _input_arithmetic(model) or "none",
        "external data": "yes" if external else "no",
    }
    for entry in model.metadata_props:
        if len(entry.value) <= _LONGEST_METADATA:
            details[f"metadata.{entry.key}"] = entry.value
    return details


def _input_arithmetic(model: onnx.ModelProto) -> str:
    """Normalisation inside the graph: constants added to, multiplied with ... the input."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    value = next((i.name for i in model.graph.input if i.name not in constants), "")
    found: list[str] = []
    for node in model.graph.node:
        if value not in node.input:
            continue
        other = [constants[name] for name in node.input if name in constants]
        few = len(other) == 1 and torch.Size(other[0].dims).numel() <= _MOST_CHANNELS
        if node.op_type not in ("Sub", "Add", "Div", "Mul") or not few:
            break
        numbers = onnx.numpy_helper.to_array(other[0]).ravel().tolist()
        found.append(f"{node.op_type} {' '.join(f'{number:.4g}' for number in numbers)}")
        value = node.output[0]
    return ", ".join(found)


def _flatten_output(model: onnx.ModelProto, signature: Signature) -> str:
    """Name of the output ``[B, K]``; a Flatten node is added where the graph has none."""
    if not signature.flatten:
        return signature.output
    model.graph.node.append(onnx.helper.make_node("Flatten", [signature.output], [_FLAT]))
    return _FLAT


def _probe_shape(signature: Signature) -> tuple[int, ...]:
    """A full image shape: the stated one, with usual extents where it is open."""
    usual = _UNKNOWN_EXTENTS[signature.layout]
    return tuple(n or u for n, u in zip(signature.input_shape, usual, strict=True))


def _final_softmax(graph: OnnxGraph) -> Node | None:
    """The softmax over classes that the output comes from, if the graph ends in one."""
    writers = {name: node for node in graph.nodes for name in node.outputs}
    node = writers.get(graph.outputs[0])
    while node is not None and node.operator in _KEEP_SCORES:
        node = writers.get(node.inputs[0])
    if node is None or node.operator != "Softmax":
        return None
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
    return node if axis in (1, -1) else None


def _logits_module(
    graph: OnnxGraph, adapter: Adapter, images: Tensor, scores: Tensor
) -> nn.Module | None:
    """The graph without its final softmax; None where it has none.

    ``scores`` are what the graph returns for ``images``; the softmax of the logits must equal them.
    """
    softmax = _final_softmax(graph)
    if softmax is None:
        return None
    module = adapter(graph.without(softmax)).eval()
    with torch.no_grad():
        found = module(images).softmax(1)
    same = found.shape == scores.shape and torch.allclose(found, scores, rtol=1e-3, atol=1e-6)
    return module if same else None
