"""Graphs made to exhaust memory or time end in a message that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph import build_graph, control
from tests.loaders.onnx_files import classifier, load, model, one_node, value

HUGE = 2**40
X = np.ones((2, 3), np.float32)
IMAGE = np.ones((1, 1, 4, 4), np.float32)


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def graph_of(nodes: list[NodeProto], weights: dict[str, Any] | None = None) -> onnx.ModelProto:
    return model(nodes, [value("x", [2, 3])], [value("y", None)], weights=weights)


@pytest.mark.parametrize(
    ("operator", "opset", "constants", "attributes"),
    [
        ("ConstantOfShape", 9, [np.array([HUGE, 2])], {}),
        ("Expand", 13, [X, np.array([HUGE, 2, 3])], {}),
        ("Tile", 13, [X, np.array([HUGE, 1])], {}),
        ("Range", 11, [np.int64(0), np.int64(HUGE), np.int64(1)], {}),
        ("Range", 11, [np.float32(0), np.float32(1), np.float32(1e-30)], {}),
        ("Pad", 13, [X, np.array([0, 0, HUGE, 0])], {}),
        ("Pad", 13, [X, np.array([0, 0, HUGE, 0])], {"mode": "reflect"}),
        ("Resize", 13, [IMAGE, None, None, np.array([1, 1, HUGE, 4])], {}),
        ("Resize", 13, [IMAGE, None, np.array([1, 1, 1e9, 1e9], np.float32)], {"mode": "linear"}),
        ("OneHot", 11, [np.array([1]), np.array(HUGE), np.array([0.0, 1.0])], {}),
        ("Conv", 11, [IMAGE, IMAGE], {"pads": [HUGE, 0, 0, 0]}),
        ("ConvTranspose", 11, [IMAGE, IMAGE], {"strides": [HUGE, 1]}),
        ("ConvTranspose", 11, [IMAGE, IMAGE], {"output_shape": [HUGE, 4]}),
        ("MaxPool", 11, [IMAGE], {"kernel_shape": [1, 1], "pads": [HUGE, 0, 0, 0]}),
        ("AveragePool", 11, [IMAGE], {"kernel_shape": [HUGE, 2], "ceil_mode": 1}),
        ("Einsum", 12, [np.ones(2**17, np.float32)] * 2, {"equation": "i,j->ij"}),
        ("MatMul", 13, [np.ones((2**17, 1), np.int64), np.ones((1, 2**17), np.int64)], {}),
        ("Add", 13, [np.ones((2**17, 1), np.float32), np.ones((1, 2**17), np.float32)], {}),
    ],
)
def test_tensors_of_absurd_size(
    operator: str, opset: int, constants: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(ModelFileError, match=r"elements, found"):
        one_node(operator, opset, [], constants, **attributes)


def test_absurd_size_that_depends_on_the_input_ends_the_run() -> None:
    weights = {"shape": np.array([2**30, 2, 3])}
    graph = build_graph(graph_of([node("Expand", ["x", "shape"], ["y"])], weights))
    with pytest.raises(ModelFileError, match=r"Expand.*at most 2147483648 elements"):
        graph(torch.from_numpy(X))


def test_many_large_constants_together() -> None:
    shape = np.array([2**15, 2**15])
    nodes = [node("Expand", ["one", "shape"], [f"c{i}"]) for i in range(3)]
    nodes.append(node("Sum", ["x", "c0", "c1", "c2"], ["y"]))
    with pytest.raises(ModelFileError, match="constants of at most"):
        build_graph(graph_of(nodes, {"one": np.float32(1), "shape": shape}))


def test_cycle() -> None:
    nodes = [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Neg", ["a"], ["y"])]
    with pytest.raises(ModelFileError, match="cycle"):
        build_graph(graph_of(nodes))


def test_nodes_out_of_order_and_values_that_nothing_writes() -> None:
    with pytest.raises(ModelFileError, match="reads 'a' before"):
        build_graph(graph_of([node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])]))
    with pytest.raises(ModelFileError, match="output 'y'"):
        build_graph(graph_of([node("Relu", ["x"], ["a"])]))


def damaged(change: Callable[[onnx.TensorProto], None]) -> onnx.ModelProto:
    proto = graph_of([node("Add", ["x", "w"], ["y"])], {"w": np.ones(3, np.float32)})
    change(proto.graph.initializer[0])
    return proto


@pytest.mark.parametrize("dims", [[4], [2**40], [-1], [2**62, 4], [3, 2**31]])
def test_data_that_do_not_fill_the_dimensions(dims: list[int]) -> None:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.dims[:] = dims

    with pytest.raises(ModelFileError, match="'w' of dimensions"):
        build_graph(damaged(change))


def test_type_that_does_not_exist() -> None:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.data_type = 99

    with pytest.raises(ModelFileError, match="99"):
        build_graph(damaged(change))


def nested(depth: int) -> onnx.ModelProto:
    inner = [node("Identity", ["x"], [f"y{depth}"])]
    for level in range(depth - 1, -1, -1):
        deeper = helper.make_graph(inner, "inner", [], [value(f"y{level + 1}", None)])
        other = [node("Identity", ["x"], [f"z{level}"])]
        flat = helper.make_graph(other, "other", [], [value(f"z{level}", None)])
        inner = [node("If", ["go"], [f"y{level}"], then_branch=deeper, else_branch=flat)]
    inner.append(node("Identity", ["y0"], ["y"]))
    return graph_of(inner, {"go": np.array(True)})


def test_graphs_inside_graphs() -> None:
    x = torch.from_numpy(X)
    torch.testing.assert_close(build_graph(nested(8))(x), x)
    with pytest.raises(ModelFileError, match="deep"):
        build_graph(nested(20))


def looping(count: int) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), node("Identity", ["c"], ["d"])],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("c", [], TensorProto.BOOL),
            value("v", None),
        ],
        [value("d", [], TensorProto.BOOL), value("w", None)],
    )
    loop = node("Loop", ["count", "", "x"], ["y"], body=body)
    return graph_of([loop], {"count": np.array(count)})


def test_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.from_numpy(X).clone().requires_grad_()
    y = build_graph(looping(3))(x)
    torch.testing.assert_close(y, 8 * x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.full_like(x, 8))
    monkeypatch.setattr(control, "_MOST_UNROLLED", 1000)
    with pytest.raises(ModelFileError, match="loops run more than"):
        build_graph(looping(2**62))(x)


def with_functions(bodies: dict[str, list[NodeProto]]) -> onnx.ModelProto:
    proto = graph_of([helper.make_node("f0", ["x"], ["y"], domain="own")])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for name, nodes in bodies.items():
        proto.functions.append(helper.make_function("own", name, ["a"], ["z"], nodes, imports))
    proto.opset_import.append(imports[1])
    return proto


def call(name: str, source: str, target: str) -> NodeProto:
    return helper.make_node(name, [source], [target], domain="own")


def test_functions_that_double_at_every_level() -> None:
    bodies = {
        f"f{i}": [call(f"f{i + 1}", "a", "b"), call(f"f{i + 1}", "b", "z")] for i in range(30)
    }
    bodies["f30"] = [node("Relu", ["a"], ["z"])]
    with pytest.raises(ModelFileError, match="1073741824"):
        build_graph(with_functions(bodies))


def test_functions_that_call_themselves() -> None:
    with pytest.raises(ModelFileError, match="calling itself"):
        build_graph(with_functions({"f0": [call("f1", "a", "z")], "f1": [call("f0", "a", "z")]}))


def hostile_classifiers() -> dict[str, onnx.ModelProto]:
    """Classifiers by what is wrong with them, as they would lie in a file."""
    scores = [value("scores", ["batch", 5])]
    cycle = [node("Add", ["logits", "b"], ["a"]), node("Add", ["a", "b"], ["scores"])]
    cycle.insert(1, node("Relu", ["a"], ["b"]))
    huge = [
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        node("Add", ["logits", "sum"], ["scores"]),
    ]
    outer = [
        node("Reshape", ["input", "column"], ["u"]),
        node("Reshape", ["input", "row"], ["v"]),
        node("MatMul", ["u", "v"], ["uv"]),
        node("ReduceSum", ["uv"], ["sum"], keepdims=0),
        node("Add", ["logits", "sum"], ["scores"]),
    ]
    rows = {"column": np.array([-1, 1]), "row": np.array([1, -1])}
    damaged = classifier()
    damaged.graph.initializer[0].dims[0] = 2**40
    return {
        "cycle": classifier(cycle, scores),
        "billions of zeros": classifier(huge, scores, weights={"shape": np.array([HUGE])}),
        "outer product of a large image": classifier(
            outer, scores, ("batch", 3, 256, 256), weights=rows
        ),
        "dimensions without data": damaged,
    }


@pytest.mark.parametrize("name", hostile_classifiers())
def test_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        load(hostile_classifiers()[name], tmp_path)


def test_many_nodes_and_outputs_take_linear_time() -> None:
    count = 10_000  # a quadratic step would take minutes
    nodes = [node("Relu", ["x" if i == 0 else f"v{i - 1}"], [f"v{i}"]) for i in range(count)]
    proto = model(nodes, [value("x", [2, 3])], [value(f"v{i}", None) for i in range(count)])
    assert len(build_graph(proto).nodes) == count
