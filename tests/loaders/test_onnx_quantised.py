"""Quantised graphs: what ONNX Runtime computes, with gradients that pass the rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from modelaudit.loaders.onnx_file import load_onnx
from modelaudit.loaders.onnx_graph import build_graph
from modelaudit.loaders.onnx_graph.reference import OnnxRuntimeReference
from modelaudit.loaders.types import LoadOptions
from tests.loaders.onnx_files import model, one_node, value

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(np.float32)


def reference(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"x": x})
    return np.asarray(result)


def quantise(x: str, y: str, scale: str = "scale", zero: str = "zero") -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{y}_q"]),
        helper.make_node("DequantizeLinear", [f"{y}_q", scale, zero], [y]),
    ]


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_rounding_is_exact_and_the_gradient_passes_inside_the_range(kind: type) -> None:
    limits = np.iinfo(kind)
    zero, scale = (
        kind((limits.max + limits.min + 1) // 2),
        np.float32(4 / (limits.max - limits.min)),
    )
    proto = model(
        [*quantise("x", "y")],
        [value("x", [None])],
        [value("y", [None])],
        opset=21,
        weights={"scale": scale, "zero": zero},
    )
    proto.ir_version = 10
    points = np.array([-3, -1.5, -0.3, 0, 0.01, 1.234567, 1.9, 2.5], np.float32)
    x = torch.from_numpy(points).requires_grad_()
    for _ in range(2):  # the recorded plan gives the same
        y = build_graph(proto)(x)
        np.testing.assert_array_equal(y.detach().numpy(), reference(proto, points))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 0]))


def test_gradient_passes_operators_that_move_quantised_values() -> None:
    weights = {"scale": np.float32(0.1), "zero": np.int8(0), "shape": np.array([2, 12])}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("Reshape", ["q", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"]),
        helper.make_node("DequantizeLinear", ["t", "scale", "zero"], ["y"]),
    ]
    proto = model(nodes, [value("x", [2, 3, 4])], [value("y", None)], 13, weights)
    x = torch.from_numpy(X).requires_grad_()
    factor = torch.arange(24.0).reshape(12, 2)
    y = build_graph(proto)(x)
    np.testing.assert_allclose(y.detach().numpy(), reference(proto, X), rtol=1e-6)
    (gradient,) = torch.autograd.grad((y * factor).sum(), x)
    torch.testing.assert_close(gradient, factor.t().reshape(2, 3, 4))


def test_quantised_outputs_are_integers() -> None:
    graph = one_node("QuantizeLinear", 13, [X], [np.float32(0.1), np.uint8(128)])
    result = graph(torch.from_numpy(X))
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(result.numpy(), (X / np.float32(0.1)).round() + 128)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches = iter(np.random.default_rng(1).random((8, 4, 3, 8, 8), dtype=np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


def small_network(*, kinks: bool) -> ModelProto:
    """With ``kinks`` ReLU and max pooling, whose gradient a rounding may change."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (5, 24), "b2": (5,), "w3": (5, 5)}
    weights = {k: rng.normal(size=s).astype(np.float32) / 3 for k, s in shapes.items()}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu" if kinks else "Sigmoid", ["c"], ["r"]),
        helper.make_node("MaxPool" if kinks else "AveragePool", ["r"], ["m"], **pool),
        helper.make_node("AveragePool", ["r"], ["a"], **pool),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("Add", ["m", "a"], ["ma"]),
        helper.make_node("Mul", ["m", "s"], ["ms"]),
        helper.make_node("Concat", ["ma", "ms", "a"], ["j"], axis=1),
        helper.make_node("GlobalAveragePool", ["j"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "w3"], ["y"]),
    ]
    images, scores = value("x", ["b", 3, 8, 8]), value("y", ["b", 5])
    return model(nodes, [images], [scores], 17, weights)


@pytest.mark.parametrize("layout", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kinks", [False, True])
def test_network_quantised_by_onnx_runtime(
    layout: QuantFormat, per_channel: bool, kinks: bool, tmp_path: Path
) -> None:
    original, path = small_network(kinks=kinks), str(tmp_path / "quantised.onnx")
    quantize_static(original, path, _Images(), quant_format=layout, per_channel=per_channel)
    proto = onnx.load(path)
    x = RNG.random((4, 3, 8, 8), dtype=np.float32)
    graph, images = build_graph(proto), torch.from_numpy(x).requires_grad_()
    scores = graph(images)
    expected = reference(proto, x)
    # Another order of sums may round a value to the next step, as it does between the levels of
    # optimisation of ONNX Runtime.
    step = np.abs(expected).max() / 127
    np.testing.assert_allclose(scores.detach().numpy(), expected, atol=2.01 * step)
    (found,) = torch.autograd.grad(scores[:, 0].sum(), images)
    (wanted,) = torch.autograd.grad(build_graph(original)(images)[:, 0].sum(), images)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), 0)
    assert cosine > (0.8 if kinks else 0.98)  # the weights are rounded too


def test_dynamically_quantised_product_has_the_gradient_of_the_float_product(
    tmp_path: Path,
) -> None:
    weight = RNG.integers(-127, 128, (4, 5)).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    proto = model(nodes, [value("x", [2, 3, 4])], [value("y", None)], 13, {"w": weight})
    x = torch.from_numpy(X).requires_grad_()
    y = build_graph(proto)(x)
    onnx.save(proto, str(tmp_path / "product.onnx"))
    runtime = OnnxRuntimeReference(tmp_path / "product.onnx", "y", None)  # exact on every CPU
    np.testing.assert_allclose(y.detach().flatten(1).numpy(), runtime(X), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    expected = torch.from_numpy(weight).float().sum(1).expand(2, 3, 4)
    torch.testing.assert_close(gradient, expected)


def test_vectorized_over_images() -> None:
    proto = model(
        quantise("x", "y"),
        [value("x", [1, 4])],
        [value("y", None)],
        13,
        {"scale": np.float32(0.1), "zero": np.int8(0)},
    )
    graph, x = build_graph(proto), torch.rand(3, 4)
    together = torch.vmap(lambda image: graph(image[None])[0])(x)
    torch.testing.assert_close(together, torch.cat([graph(image[None]) for image in x]))


def test_quantised_file_as_a_classifier(tmp_path: Path) -> None:
    onnx.save(small_network(kinks=True), str(tmp_path / "float.onnx"))
    path = tmp_path / "quantised.onnx"
    quantize_static(tmp_path / "float.onnx", path, _Images(), quant_format=QuantFormat.QDQ)
    loaded = load_onnx(path, LoadOptions())
    x = RNG.random((3, 3, 8, 8), dtype=np.float32)
    assert loaded.reference is not None
    step = np.abs(loaded.reference(x)).max() / 127
    np.testing.assert_allclose(
        loaded.module(torch.from_numpy(x)).numpy(), loaded.reference(x), atol=2.01 * step
    )
