"""Reading and checking an ONNX file. Nothing in the file is executed."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.external_data_helper

from modelaudit.errors import ModelFileError, reason_of
from modelaudit.loaders.onnx_graph.build import opsets, require_supported
from modelaudit.loaders.onnx_graph.functions import all_nodes
from modelaudit.loaders.onnx_graph.order import sort_nodes


def read_model(path: Path) -> tuple[onnx.ModelProto, bool]:
    """Parse and check an ONNX file, and load its external data from the file's own folder.

    Returns:
        The model, and whether it has external data.

    Raises:
        ModelFileError: not an ONNX file, truncated, refused by ``onnx.checker``, or with external
            data that is missing, outside the folder or beside a file whose name is not UTF-8.
        UnsupportedOperatorError: operators that the importer does not implement.
    """
    model = _parse(path)
    newest, opset = onnx.defs.onnx_opset_version(), opsets(model).get("", 0)
    if opset > newest:
        raise ModelFileError(
            f"expected opset {newest} at most in {path}, found {opset}; install a newer onnx "
            "package or export the model with an older opset"
        )
    require_supported(model)
    sort_nodes(model.graph)
    external = uses_external_data(model)
    if external:
        _require_utf8(path)
    try:
        # By name the checker looks at the external data too, but it takes UTF-8 names only.
        onnx.checker.check_model(str(path) if external else model)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # the checker and the loader raise many unrelated types
        raise ModelFileError(
            f"expected a valid ONNX model in {path}, but onnx refuses it: {reason_of(error)}; "
            "export it again, with external data (if any) in the model's own folder"
        ) from error
    return model, external


def uses_external_data(model: onnx.ModelProto) -> bool:
    """Whether any tensor is stored outside the file; loading the data clears the mark."""
    external = onnx.TensorProto.EXTERNAL
    graphs = [model.graph]
    tensors: list[onnx.TensorProto] = []
    for nodes in (all_nodes(model.graph.node), *(f.node for f in model.functions)):
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            graphs.append(attribute.g)
            tensors += [attribute.t, *attribute.tensors]
    tensors += [tensor for graph in graphs for tensor in graph.initializer]
    return any(tensor.data_location == external for tensor in tensors)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes where inference succeeds, else unchanged."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # inference is a convenience: models over 2 GB and odd operators fail it
        return model


def _require_utf8(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ModelFileError(
            f"expected a UTF-8 file name for an ONNX model with external data, found "
            f"{str(path)!a}; rename the file (and its folders) to a plain name, or save the model "
            "in a single file"
        ) from error


def _parse(path: Path) -> onnx.ModelProto:
    """The protocol buffer in the file, without external data; it has a graph."""
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:  # protobuf's DecodeError, which is not part of onnx's interface
        raise ModelFileError(
            f"expected an ONNX model in {path}, found bytes that do not parse as one; the file is "
            "of another format or truncated: copy or export it again"
        ) from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelFileError(
            f"expected an ONNX model in {path}, found no graph; the file is of another format or "
            "empty: copy or export it again"
        )
    return model
