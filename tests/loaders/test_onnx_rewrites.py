"""Nodes that are folded into others or put together again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph import build_graph
from tests.loaders.onnx_files import IMAGES, assert_agrees, classifier, load, model, value


def test_batch_normalization_is_folded_into_the_convolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["scale", "shift", "mean", "var"]
    weights = {name: rng.uniform(0.5, 2, 5).astype(np.float32) for name in names}
    weights["k"] = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *names], ["n"]),
        helper.make_node("ReduceMean", ["n"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    inputs, outputs = [value("input", ["batch", 3, 8, 8])], [value("scores", ["batch", 5])]
    loaded = load(model(nodes, inputs, outputs, weights=weights), tmp_path)
    assert [node.operator for node in loaded.module.nodes] == ["Conv", "ReduceMean"]
    assert_agrees(loaded)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_group_normalization_is_put_together_again(scale: float, tmp_path: Path) -> None:
    """As torch's older exporter writes it; only if the inner normalization has no scale itself."""
    rng = np.random.default_rng(0)
    weights = {
        "k": rng.normal(size=(6, 3, 1, 1)).astype(np.float32),
        "groups": np.array([0, 2, -1]),
        "ones": np.full(2, scale, np.float32),
        "zeros": np.zeros(2, np.float32),
        "gamma": rng.uniform(0.5, 2, (6, 1, 1)).astype(np.float32),
        "beta": rng.uniform(0.5, 2, (6, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["x"]),
        helper.make_node("Reshape", ["x", "groups"], ["r"]),
        helper.make_node("InstanceNormalization", ["r", "ones", "zeros"], ["n"], epsilon=1e-3),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["n", "s"], ["b"]),
        helper.make_node("Mul", ["b", "gamma"], ["m"]),
        helper.make_node("Add", ["m", "beta"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    inputs, outputs = [value("input", ["batch", 3, 8, 8])], [value("scores", ["batch", 6])]
    loaded = load(model(nodes, inputs, outputs, weights=weights), tmp_path)
    whole = ["Conv", "GroupNormalization", "Relu", "ReduceMean"]
    assert ([node.operator for node in loaded.module.nodes] == whole) == (scale == 1)
    assert_agrees(loaded)


GELU_ORDERS = {
    "older exporter": [("Mul", "x", "plus"), ("Mul", "first", "half")],
    "newer exporter": [("Mul", "half", "plus"), ("Mul", "x", "first")],
    "Keras": [("Mul", "half", "x"), ("Mul", "first", "plus")],
    "not a half": [("Mul", "two", "x"), ("Mul", "first", "plus")],
    "not x": [("Mul", "half", "logits"), ("Mul", "first", "plus")],
}


@pytest.mark.parametrize("division", [True, False])
@pytest.mark.parametrize("order", GELU_ORDERS)
def test_gelu_is_put_together_again(order: str, division: bool, tmp_path: Path) -> None:
    root = np.float32(2**0.5 if division else 0.5**0.5)
    weights = {"root": root, "one": np.float32(1), "half": np.float32(0.5), "two": np.float32(2)}
    tail = [
        helper.make_node("Mul", ["logits", "two"], ["x"]),
        helper.make_node("Div" if division else "Mul", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["plus"]),
    ]
    for output, (operator, *operands) in zip(("first", "scores"), GELU_ORDERS[order], strict=True):
        tail.append(helper.make_node(operator, operands, [output]))
    loaded = load(classifier(tail, [value("scores", ["batch", 5])], weights=weights), tmp_path)
    operators = [node.operator for node in loaded.module.nodes]
    assert ("Erf" in operators) == order.startswith("not")
    assert ("Gelu" in operators) != order.startswith("not")
    assert_agrees(loaded)


def test_division_by_x_is_no_gelu(tmp_path: Path) -> None:
    weights = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    tail = [
        helper.make_node("Div", ["root", "logits"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["plus"]),
        helper.make_node("Mul", ["logits", "plus"], ["first"]),
        helper.make_node("Mul", ["first", "half"], ["scores"]),
    ]
    assert_agrees(
        load(classifier(tail, [value("scores", ["batch", 5])], weights=weights), tmp_path)
    )


@pytest.mark.parametrize("constant", [True, False])
def test_batch_normalization_by_own_statistics_is_for_weights_only(
    constant: bool, tmp_path: Path
) -> None:
    """Standardised weights are written like that; of images, scores would depend on the batch."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(1, 5, 27)).astype(np.float32),
        "shape": np.array([5, 3, 3, 3]),
        "scale": rng.uniform(0.5, 2, 5).astype(np.float32),
        "zeros": np.zeros(5, np.float32),
    }
    statistics = ["scale", "zeros", "zeros", "scale"]
    source = "w" if constant else "c"
    normalize = helper.make_node(
        "BatchNormalization", [source, *statistics], ["n", "mean", "var"], training_mode=1
    )
    reshape = helper.make_node("Reshape", ["n" if constant else "w", "shape"], ["k"])
    convolve = helper.make_node("Conv", ["input", "k"], ["c"])
    nodes = [normalize, reshape, convolve] if constant else [reshape, convolve, normalize]
    pool = helper.make_node(
        "ReduceMean", ["c" if constant else "n"], ["scores"], axes=[2, 3], keepdims=0
    )
    inputs, outputs = [value("input", ["batch", 3, 8, 8])], [value("scores", ["batch", 5])]
    proto = model([*nodes, pool], inputs, outputs, weights=weights)
    if constant:
        assert_agrees(load(proto, tmp_path))
    else:
        with pytest.raises(ModelFileError, match="training mode; export the model in eval mode"):
            load(proto, tmp_path)


def test_parts_of_a_normalization_are_folded_into_the_convolution(tmp_path: Path) -> None:
    """What tf2onnx makes of a batch normalization, and other arithmetic per channel."""
    rng = np.random.default_rng(0)
    weights = {"k": rng.normal(size=(5, 3, 3, 3)).astype(np.float32), "two": np.float32(2)}
    for name, shape in {"a": (5, 1, 1), "b": (1, 5, 1, 1), "c": (1,), "d": (5, 1, 1)}.items():
        weights[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
    weights["row"] = rng.uniform(size=(6,)).astype(np.float32)  # per column, not per channel
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["x"]),
        helper.make_node("Mul", ["a", "x"], ["x1"]),
        helper.make_node("Add", ["x1", "b"], ["x2"]),
        helper.make_node("Sub", ["c", "x2"], ["x3"]),
        helper.make_node("Sub", ["x3", "d"], ["x4"]),
        helper.make_node("Div", ["x4", "two"], ["x5"]),
        helper.make_node("Mul", ["x5", "row"], ["x6"]),
        helper.make_node("ReduceMean", ["x6"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    inputs, outputs = [value("input", ["batch", 3, 8, 8])], [value("scores", ["batch", 5])]
    loaded = load(model(nodes, inputs, outputs, weights=weights), tmp_path)
    assert [node.operator for node in loaded.module.nodes] == ["Conv", "Mul", "ReduceMean"]
    assert_agrees(loaded)


def test_constant_that_widens_the_result_of_a_convolution_is_not_folded(tmp_path: Path) -> None:
    weights = {"k": np.ones((1, 3, 8, 8), np.float32), "m": np.ones((1, 5, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["x"]),
        helper.make_node("Mul", ["x", "m"], ["y"]),
        helper.make_node("Flatten", ["y"], ["scores"]),
    ]
    inputs, outputs = [value("input", ["batch", 3, 8, 8])], [value("scores", ["batch", 5])]
    assert_agrees(load(model(nodes, inputs, outputs, weights=weights), tmp_path))


def test_convolution_that_is_an_output_itself_is_not_folded() -> None:
    weights = {name: np.full(5, 2, np.float32) for name in ("scale", "shift", "mean", "var")}
    weights["k"] = np.ones((5, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
    ]
    outputs = [value(name, ["batch", 5, 8, 8]) for name in ("c", "n")]
    graph = build_graph(model(nodes, [value("input", ["b", 3, 8, 8])], outputs, weights=weights))
    convolved, _ = graph(IMAGES)
    torch.testing.assert_close(convolved, IMAGES.sum(1, keepdim=True).expand(-1, 5, -1, -1))
