"""Small ONNX files for the tests, written with ``onnx.helper``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from modelaudit.loaders.onnx_file import load_onnx
from modelaudit.loaders.onnx_graph import OnnxGraph, build_graph
from modelaudit.loaders.types import LoadedModel, LoadOptions

Shape = Sequence[int | str] | None
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    opset: int = 17,
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), tensors)
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=imports, producer_name="tests")
    proto.ir_version = 8
    return proto


def one_node(
    operator: str,
    opset: int,
    operands: Sequence[np.ndarray],
    constants: Sequence[Any] = (),
    outputs: int = 1,
    **attributes: Any,
) -> OnnxGraph:
    """A graph of one node on ``operands`` followed by constant inputs (None: left out)."""
    given = [f"x{i}" for i in range(len(operands))]
    weights = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(operator, [*given, *names], results, **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in operands]
    inputs = [value(n, x.shape, k) for n, x, k in zip(given, operands, kinds, strict=True)]
    proto = model([node], inputs, [value(n, None) for n in results], opset, weights)
    return build_graph(proto)


def classifier(
    tail: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    input_shape: Shape = ("batch", 3, 8, 8),
    opset: int = 17,
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """Flatten and Gemm from images to 5 logits called ``logits``, then ``tail``."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 192)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
        *tail,
    ]
    outputs = outputs or [value("logits", ["batch", 5])]
    every = {"w": matrix, "b": bias, **(weights or {})}
    return model(nodes, [value("input", input_shape)], outputs, opset, every)


def load(proto: onnx.ModelProto, folder: Path) -> LoadedModel:
    path = folder / "model.onnx"
    onnx.save(proto, str(path))
    return load_onnx(path, LoadOptions())


def assert_agrees(loaded: LoadedModel, images: torch.Tensor = IMAGES) -> None:
    assert loaded.reference is not None
    expected = loaded.reference(images.numpy())
    np.testing.assert_allclose(loaded.module(images).numpy(), expected, rtol=1e-4, atol=1e-5)
