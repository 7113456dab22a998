"""ONNX files as classifiers: what is read, what is refused, what is reported."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from modelaudit.errors import ModelFileError, UnsupportedOperatorError
from modelaudit.loaders.onnx_file import load_onnx
from modelaudit.loaders.onnx_graph.read import uses_external_data
from modelaudit.loaders.types import LoadOptions
from tests.loaders.onnx_files import IMAGES, assert_agrees, classifier, load, model, value


def test_facts_of_a_file(tmp_path: Path) -> None:
    proto = classifier()
    proto.metadata_props.add(key="task", value="digits")
    proto.metadata_props.add(key="long", value="x" * 1000)
    loaded = load(proto, tmp_path)
    assert loaded.format == "onnx"
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.layout == "NCHW"
    assert loaded.num_classes == 5
    assert loaded.logits_module is None
    assert loaded.notes == ()
    assert loaded.details == {
        "producer": "tests",
        "opset": "17",
        "ir_version": "8",
        "operators": "Flatten×1, Gemm×1",
        "parameters": "965",
        "arithmetic on the input": "none",
        "external data": "no",
        "metadata.task": "digits",
    }
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert_agrees(loaded)


def test_weights_in_constant_nodes_are_counted(tmp_path: Path) -> None:
    proto = classifier()
    for number, tensor in enumerate(proto.graph.initializer):
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.node.insert(number, node)
    del proto.graph.initializer[:]
    loaded = load(proto, tmp_path)
    assert loaded.details["parameters"] == "965"
    assert_agrees(loaded)


def test_channels_last_in_memory_and_nhwc_in_shape(tmp_path: Path) -> None:
    assert_agrees(load(classifier(), tmp_path), IMAGES.to(memory_format=torch.channels_last))
    loaded = load(classifier(input_shape=("batch", 8, 8, 3)), tmp_path)
    assert loaded.layout == "NHWC"
    assert_agrees(loaded, IMAGES.permute(0, 2, 3, 1).contiguous())


@pytest.mark.parametrize("opset", [11, 13])
def test_final_softmax_is_cut_off_for_logits(opset: int, tmp_path: Path) -> None:
    tail = [
        helper.make_node("Softmax", ["logits"], ["p"], axis=1 if opset < 13 else -1),
        helper.make_node("Identity", ["p"], ["scores"]),
    ]
    loaded = load(classifier(tail, [value("scores", ["batch", 5])], opset=opset), tmp_path)
    assert loaded.logits_module is not None
    logits, scores = loaded.logits_module(IMAGES), loaded.module(IMAGES)
    torch.testing.assert_close(logits.softmax(1), scores)
    assert not torch.allclose(logits, scores)
    pointers = {b.data_ptr() for b in loaded.module.buffers()}
    assert pointers == {b.data_ptr() for b in loaded.logits_module.buffers()}
    assert_agrees(loaded)


def test_softmax_inside_the_network_is_kept(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Softmax", ["logits"], ["p"]),
        helper.make_node("Mul", ["p", "two"], ["scores"]),
    ]
    weights = {"two": np.float32(2)}
    loaded = load(classifier(tail, [value("scores", ["batch", 5])], weights=weights), tmp_path)
    assert loaded.logits_module is None


def test_first_output_with_the_form_of_scores_is_used(tmp_path: Path) -> None:
    outputs = [value("best", ["batch"], TensorProto.INT64), value("logits", ["batch", 5])]
    tail = [helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0)]
    loaded = load(classifier(tail, outputs), tmp_path)
    assert loaded.notes == ("The graph has 2 outputs (best, logits); used 'logits'.",)
    assert_agrees(loaded)


@pytest.mark.parametrize("operator", ["Relu", "Gemm"])
def test_features_are_told_from_scores_by_the_layer_between(operator: str, tmp_path: Path) -> None:
    """``logits`` are features where a layer with weights turns them into ``later``."""
    more = ["matrix"] if operator == "Gemm" else []
    tail = [helper.make_node(operator, ["logits", *more], ["later"])]
    weights = {"matrix": np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)}
    outputs = [value("logits", ["batch", 5]), value("later", ["batch", 5])]
    loaded = load(classifier(tail, outputs, weights=weights), tmp_path)
    used = "later" if operator == "Gemm" else "logits"
    assert loaded.notes == (f"The graph has 2 outputs (logits, later); used '{used}'.",)
    assert_agrees(loaded)


def test_output_with_two_trailing_ones_is_flattened(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Unsqueeze", ["logits", "axes"], ["four"]),
        helper.make_node("Softmax", ["four"], ["scores"], axis=1),
    ]
    outputs = [value("scores", ["batch", 5, 1, 1])]
    loaded = load(classifier(tail, outputs, weights={"axes": np.array([2, 3])}), tmp_path)
    assert loaded.module(IMAGES).shape == (3, 5)
    assert "flattened" in loaded.notes[0]
    assert loaded.logits_module is not None
    torch.testing.assert_close(loaded.logits_module(IMAGES).softmax(1), loaded.module(IMAGES))
    assert_agrees(loaded)


def test_16_bit_weights_are_widened(tmp_path: Path) -> None:
    proto = classifier()
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for entry in (*proto.graph.input, *proto.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    loaded = load(proto, tmp_path)
    assert "widened" in loaded.notes[0]
    assert loaded.reference is not None
    expected = loaded.reference(IMAGES.numpy())
    np.testing.assert_allclose(loaded.module(IMAGES).numpy(), expected, atol=0.05)


def test_if_takes_the_branch_of_its_condition(tmp_path: Path) -> None:
    branches = {}
    for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs")):
        node = helper.make_node(operator, ["logits"], [name])
        branches[name] = helper.make_graph([node], name, [], [value(name, ["batch", 5])])
    tail = [
        helper.make_node("Shape", ["input"], ["sizes"], start=1, end=2),
        helper.make_node("Equal", ["sizes", "three"], ["is3"]),
        helper.make_node("If", ["is3"], ["scores"], **branches),
    ]
    weights = {"three": np.array([3])}
    loaded = load(classifier(tail, [value("scores", ["batch", 5])], weights=weights), tmp_path)
    assert_agrees(loaded)
    assert_agrees(loaded)  # the recorded plan


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"])]
    function = helper.make_function(
        "local", "Square", ["a"], ["b"], body, [helper.make_opsetid("", 17)]
    )
    tail = [helper.make_node("Square", ["logits"], ["scores"], domain="local")]
    proto = classifier(tail, [value("scores", ["batch", 5])])
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert_agrees(load(proto, tmp_path))


def test_module_can_be_copied_and_pickled(tmp_path: Path) -> None:
    module = load(classifier(), tmp_path).module
    expected = module(IMAGES)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(IMAGES), expected)


def test_conversion_replaces_the_constants_of_recorded_plans(tmp_path: Path) -> None:
    module = load(classifier(), tmp_path).module
    expected = module(IMAGES)
    assert module.double()(IMAGES.double()).dtype == torch.float64
    torch.testing.assert_close(module.float()(IMAGES), expected)


def test_first_run_may_be_in_inference_mode(tmp_path: Path) -> None:
    module = load(classifier(), tmp_path).module
    images = torch.rand(7, 3, 8, 8)
    with torch.inference_mode():
        module(images)
    images.requires_grad_()
    module(images).sum().backward()
    assert images.grad is not None


def test_unknown_operators_are_all_named(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Fancy", ["logits"], ["f"], domain="com.example", name="fancy_1"),
        helper.make_node("StringNormalizer", ["f"], ["scores"], name="strings"),
    ]
    proto = classifier(tail, [value("scores", ["batch", 5])])
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(UnsupportedOperatorError) as caught:
        load(proto, tmp_path)
    message = str(caught.value)
    assert "Fancy (domain com.example, opset 3; node fancy_1)" in message
    assert "StringNormalizer (domain ai.onnx, opset 17; node strings)" in message
    assert "onnxsim" in message
    assert "\n" not in message


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_onnx(path, LoadOptions())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_not_onnx_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"PK\x03\x04 not a graph" * 50)
    assert "expected an ONNX model" in refused(path)
    path.write_bytes(b"")
    assert "expected an ONNX model" in refused(path)
    whole = classifier().SerializeToString()
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(path)
    assert "cannot read" in refused(tmp_path / "missing.onnx")


def test_opset_of_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier(opset=999).SerializeToString())
    assert "found 999" in refused(path)


def test_graph_that_the_checker_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier([helper.make_node("Relu", ["nowhere"], ["r"])]).SerializeToString())
    assert "onnx refuses it" in refused(path)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([], "found 0 (none)"),
        ([value("input", ["b", 3, 8, 8]), value("other", [1])], "found 2 (input, other)"),
        ([value("input", ["b", 3, 8, 8], TensorProto.UINT8)], "found UINT8"),
        ([value("input", ["b", 192])], "found 2"),
    ],
)
def test_inputs_that_are_not_an_image_batch(
    inputs: list[onnx.ValueInfoProto], expected: str, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Identity", ["input" if inputs else "w"], ["y"])]
    kind = inputs[0].type.tensor_type.elem_type if inputs else TensorProto.FLOAT
    weights = {"w": np.ones((2, 5), np.float32)}
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, inputs, [value("y", ["b", 5], kind)], weights=weights), str(path))
    assert expected in refused(path)


def test_output_that_is_not_scores(tmp_path: Path) -> None:
    tail = [helper.make_node("Relu", ["input"], ["y"])]
    path = tmp_path / "model.onnx"
    onnx.save(classifier(tail, [value("y", ["batch", 3, 8, 8])]), str(path))
    assert "expected a float output of shape [B, K]" in refused(path)


def with_external_data(location: str) -> onnx.ModelProto:
    proto = classifier()
    tensor = proto.graph.initializer[0]
    raw = onnx.numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("length", str(len(raw)))):
        tensor.external_data.add(key=key, value=text)
    return proto


def test_external_data_next_to_the_model(tmp_path: Path) -> None:
    raw = onnx.numpy_helper.to_array(classifier().graph.initializer[0]).tobytes()
    (tmp_path / "weights.bin").write_bytes(raw)
    path = tmp_path / "model.onnx"
    path.write_bytes(with_external_data("weights.bin").SerializeToString())
    loaded = load_onnx(path, LoadOptions())
    assert loaded.details["external data"] == "yes"
    assert_agrees(loaded)


@pytest.mark.parametrize("location", ["../weights.bin", "missing.bin"])
def test_external_data_outside_the_folder_or_missing(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4 * 5 * 192)
    folder = tmp_path / "inner"
    folder.mkdir()
    path = folder / "model.onnx"
    path.write_bytes(with_external_data(location).SerializeToString())
    assert "onnx refuses it" in refused(path)


def test_node_that_fails_is_named(tmp_path: Path) -> None:
    tail = [helper.make_node("Reshape", ["logits", "shape"], ["scores"], name="bad")]
    proto = classifier(tail, [value("scores", ["b", 7])], weights={"shape": np.array([-1, 7])})
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert "node bad" in refused(path)


@pytest.mark.parametrize("batch", ["batch", 1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["one class", "all"])
def test_outputs_that_are_not_finite_are_no_fault_of_the_import(
    batch: int | str, bad: float, part: str, tmp_path: Path
) -> None:
    offset = np.full(5, bad, np.float32)
    if part == "one class":
        offset[1:] = 0
    tail = [helper.make_node("Add", ["logits", "offset"], ["scores"])]
    outputs = [value("scores", [batch, 5])]
    shape = (batch, 3, 8, 8)
    loaded = load(classifier(tail, outputs, shape, weights={"offset": offset}), tmp_path)
    assert loaded.notes == ()
    assert_agrees(loaded)


def not_utf8(folder: Path) -> Path:
    """A file name that is not UTF-8, where the file system can hold one."""
    path = folder / "model\udcff.onnx"
    try:
        path.touch()
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system takes UTF-8 names only")
    return path


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = not_utf8(tmp_path)
    path.write_bytes(classifier().SerializeToString())
    assert_agrees(load_onnx(path, LoadOptions()))
    raw = onnx.numpy_helper.to_array(classifier().graph.initializer[0]).tobytes()
    (tmp_path / "weights.bin").write_bytes(raw)
    path.write_bytes(with_external_data("weights.bin").SerializeToString())
    assert "rename the file" in refused(path)


def test_external_data_of_a_constant_node_is_noticed() -> None:
    proto = with_external_data("weights.bin")
    tensor = proto.graph.initializer.pop(0)
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    assert uses_external_data(proto)
    assert not uses_external_data(classifier())
