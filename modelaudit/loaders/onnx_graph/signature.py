"""What goes into a graph and which of its outputs are the classifier's."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from modelaudit.errors import ModelFileError
from modelaudit.loaders.types import Layout

_CHANNELS = (1, 3, 4)
_LAYERS = ("Conv", "Gemm", "MatMul")
_RETRY = "export the classifier alone, from a float image batch [B, C, H, W] to scores [B, K]"


@dataclass(frozen=True)
class Signature:
    """Input and output of an image classifier.

    Attributes:
        input_shape: of one image, without the batch dimension; an unknown extent is None.
        batch: the fixed batch size, or None where any batch size is declared.
        layout: judged by where the channels are.
        output: name of the chosen output.
        num_classes: K where the graph states it.
        flatten: whether the output is ``[B, K, 1, 1]``.
        notes: sentences for the report.
    """

    input_shape: tuple[int | None, ...]
    batch: int | None
    layout: Layout
    output: str
    num_classes: int | None
    flatten: bool
    notes: tuple[str, ...]


def read_signature(model: onnx.ModelProto) -> Signature:
    """Signature of a model with inferred shapes.

    Raises:
        ModelFileError: not exactly one input, input not float or not four-dimensional, or no
            output of the form ``[B, K]``.
    """
    batch, *shape = _input_shape(model.graph)
    notes = []
    output, dims = _choose_output(model.graph)
    names = [value.name for value in model.graph.output]
    if len(names) > 1:
        notes.append(f"The graph has {len(names)} outputs ({', '.join(names)}); used '{output}'.")
    flatten = dims is not None and len(dims) == 4
    if flatten:
        notes.append(f"The output '{output}' of shape [B, K, 1, 1] was flattened to [B, K].")
    last_is_channels = shape[2] in _CHANNELS and shape[0] not in _CHANNELS
    return Signature(
        input_shape=tuple(shape),
        batch=batch,
        layout="NHWC" if last_is_channels else "NCHW",
        output=output,
        num_classes=dims[1] if dims else None,
        flatten=flatten,
        notes=tuple(notes),
    )


def _input_shape(graph: onnx.GraphProto) -> list[int | None]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelFileError(
            f"expected a graph with one input, found {len(inputs)} ({names}); {_RETRY}"
        )
    (value,) = inputs
    kind = value.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(kind)
        raise ModelFileError(
            f"expected the input '{value.name}' to be FLOAT, found {found}; {_RETRY}"
        )
    dims = _dims(value)
    if dims is None or len(dims) != 4:
        raise ModelFileError(
            f"expected the input '{value.name}' to be an image batch with 4 dimensions, found "
            f"{'no shape' if dims is None else len(dims)}; {_RETRY}"
        )
    return dims


def _choose_output(graph: onnx.GraphProto) -> tuple[str, list[int | None] | None]:
    """Name and dimensions of the first output that can be scores of classes, not features."""
    shapes = {value.name: _dims(value) for value in graph.output if _is_float(value)}
    matrices = [name for name, dims in shapes.items() if dims is not None and len(dims) == 2]
    features = {name for later in matrices for name in _before_weights(graph, later)}
    for name in matrices:
        if name not in features:
            return name, shapes[name]
    for name, dims in shapes.items():
        if dims is not None and len(dims) == 4 and dims[2:] == [1, 1]:
            return name, dims
    for name, dims in shapes.items():
        if dims is None:  # not inferred; seen when the graph is run
            return name, None
    found = ", ".join(f"{value.name} {_dims(value)}" for value in graph.output) or "none"
    raise ModelFileError(f"expected a float output of shape [B, K], found {found}; {_RETRY}")


def _before_weights(graph: onnx.GraphProto, output: str) -> set[str]:
    """Values that ``output`` comes from by way of a layer with weights."""
    writers = {name: node for node in graph.node for name in node.output}
    seen: set[tuple[str, bool]] = set()
    ahead = [(output, False)]
    while ahead:
        name, weighted = ahead.pop()
        node = writers.get(name)
        if node is not None and (name, weighted) not in seen:
            seen.add((name, weighted))
            weighted |= node.op_type in _LAYERS
            ahead += [(source, weighted) for source in node.input]
    return {name for name, weighted in seen if weighted}


def _is_float(value: onnx.ValueInfoProto) -> bool:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return value.type.tensor_type.elem_type in kinds


def _dims(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Extents, None where symbolic; None for an unknown number of dimensions."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
