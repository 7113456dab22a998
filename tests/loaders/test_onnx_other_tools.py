"""ONNX files of other tools and settings: Keras, quantizers, optimisers, old exporters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from fixtures.onnx_cases import CASES
from fixtures.onnx_compare import gradient
from fixtures.onnx_other import compare
from modelaudit.loaders.onnx_file import load_onnx
from modelaudit.loaders.onnx_graph.order import sort_nodes
from modelaudit.loaders.types import LoadOptions
from tests.loaders.onnx_files import classifier, value


@pytest.mark.parametrize("name", CASES)
def test_import_computes_what_runtime_and_source_compute(name: str, tmp_path: Path) -> None:
    row = compare(name, CASES[name](tmp_path))
    assert row.error <= row.tolerance
    assert row.cosine is None or row.cosine > row.similar
    expected = {"float16": "widened", "several outputs": "4 outputs"}
    words = [word for key, word in expected.items() if name.startswith(key)]
    assert len(row.notes) == len(words)
    assert all(word in note for word, note in zip(words, row.notes, strict=True))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("QDQ")])
def test_gradients_pass_straight_through_quantisation(name: str, tmp_path: Path) -> None:
    """Rounding has no slope of its own: its gradient is that of the identity."""
    file = CASES[name](tmp_path)
    _, found = gradient(load_onnx(file.path, LoadOptions()).module, file.images)
    assert file.truth is not None
    assert found.norm() > 0.9 * file.truth[1].norm()


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("Keras")])
def test_keras_files_are_known_by_their_input(name: str, tmp_path: Path) -> None:
    loaded = load_onnx(CASES[name](tmp_path).path, LoadOptions())
    assert loaded.layout == "NHWC"
    assert loaded.input_shape == (12, 12, 3)
    assert loaded.num_classes == 5
    ends_in_softmax = "plain" in name or "residual" in name
    assert (loaded.logits_module is not None) == ends_in_softmax


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fixed batch")])
def test_fixed_batch_runs_with_every_number_of_images(name: str, tmp_path: Path) -> None:
    file = CASES[name](tmp_path)
    module = load_onnx(file.path, LoadOptions()).module
    together = module(file.images)
    for count in (1, 3):
        torch.testing.assert_close(
            module(file.images[:count]), together[:count], rtol=1e-4, atol=1e-5
        )


def test_nodes_are_put_in_order() -> None:
    tail = [helper.make_node("Relu", ["logits"], ["r"]), helper.make_node("Neg", ["r"], ["scores"])]
    proto = classifier(tail, [value("scores", ["batch", 5])])
    names = [node.op_type for node in proto.graph.node]
    shuffled = [proto.graph.node[i] for i in (3, 1, 2, 0)]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in shuffled]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    sort_nodes(proto.graph)
    assert [node.op_type for node in proto.graph.node] == names
    onnx.checker.check_model(proto)


def test_nodes_in_a_cycle_stay_and_are_refused_by_the_loader() -> None:
    tail = [
        helper.make_node("Add", ["logits", "b2"], ["a"]),
        helper.make_node("Neg", ["a"], ["b2"]),
    ]
    proto = classifier(tail, [value("a", ["batch", 5])])
    sort_nodes(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Flatten", "Gemm", "Add", "Neg"]


def test_nodes_inside_branches_count_as_readers() -> None:
    inner = helper.make_node("Neg", ["logits"], ["n"])
    branch = helper.make_graph([inner], "branch", [], [value("n", ["batch", 5])])
    choose = helper.make_node("If", ["yes"], ["s"], then_branch=branch, else_branch=branch)
    proto = classifier([choose], [value("s", ["batch", 5])], weights={"yes": np.array(True)})
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node[::-1]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    sort_nodes(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Flatten", "Gemm", "If"]
