"""Graphs with a fixed number of images, run with any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.loaders.onnx_files import IMAGES, assert_agrees, classifier, load, model, value


def fixed_batch(batch: int, reshape: list[int]) -> onnx.ModelProto:
    tail = [helper.make_node("Reshape", ["logits", "shape"], ["scores"])]
    outputs = [value("scores", [batch, 5])]
    weights = {"shape": np.array(reshape)}
    return classifier(tail, outputs, input_shape=(batch, 3, 8, 8), weights=weights)


def test_fixed_batch_is_freed(tmp_path: Path) -> None:
    assert_agrees(load(fixed_batch(1, [-1, 5]), tmp_path))
    loaded = load(fixed_batch(1, [1, -1]), tmp_path)
    assert loaded.notes == ()
    assert_agrees(loaded)


def test_fixed_batch_with_a_class_token_is_freed(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Unsqueeze", ["logits", "one"], ["row"]),
        helper.make_node("Concat", ["row", "token"], ["joined"], axis=1),
        helper.make_node("Reshape", ["joined", "shape"], ["scores"]),
    ]
    weights = {
        "one": np.array([1]),
        "token": np.arange(10, dtype=np.float32).reshape(1, 2, 5),
        "shape": np.array([1, 15]),
    }
    proto = classifier(tail, [value("scores", [1, 15])], (1, 3, 8, 8), weights=weights)
    loaded = load(proto, tmp_path)
    assert loaded.notes == ()
    assert_agrees(loaded)


def test_fixed_batch_with_tokens_merged_into_it_is_freed(tmp_path: Path) -> None:
    """``[1, 9, C]`` reshaped to ``[9, C]`` and back, as Keras writes a dense layer on tokens."""
    tail = [
        helper.make_node("Reshape", ["logits", "tokens"], ["rows"]),
        helper.make_node("MatMul", ["rows", "m"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "back"], ["scores"]),
    ]
    matrix = np.random.default_rng(0).normal(size=(1, 2)).astype(np.float32)
    weights = {"tokens": np.array([5, 1]), "m": matrix, "back": np.array([1, 10])}
    proto = classifier(tail, [value("scores", [1, 10])], (1, 3, 8, 8), weights=weights)
    loaded = load(proto, tmp_path)
    assert loaded.notes == ()
    assert_agrees(loaded)


def test_fixed_batch_with_expanded_and_resized_maps_is_freed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Resize", ["input", "", "", "sizes"], ["large"], mode="nearest"),
        helper.make_node("ReduceMean", ["large"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["wide"]),
        helper.make_node("Reshape", ["wide", "flat"], ["scores"]),
    ]
    weights = {
        "sizes": np.array([1, 3, 12, 16]),
        "shape": np.array([1, 3, 1, 2]),
        "flat": np.array([1, 6]),
    }
    inputs, outputs = [value("input", [1, 3, 8, 8])], [value("scores", [1, 6])]
    loaded = load(model(nodes, inputs, outputs, weights=weights), tmp_path)
    assert loaded.notes == ()
    assert_agrees(loaded)


def test_fixed_batch_that_cannot_be_freed_is_vectorized(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Squeeze", ["logits", "first"], ["alone"]),
        helper.make_node("Unsqueeze", ["alone", "first"], ["back"]),
        helper.make_node("Softmax", ["back"], ["scores"]),
    ]
    weights = {"first": np.array([0])}
    proto = classifier(tail, [value("scores", [1, 5])], (1, 3, 8, 8), weights=weights)
    loaded = load(proto, tmp_path)
    assert "slower" in loaded.notes[0]
    assert_agrees(loaded)
    assert loaded.logits_module is not None
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loaded.logits_module(images).sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("different", [False, True])
def test_fixed_batch_of_several_runs_in_chunks_where_images_differ(
    different: bool, tmp_path: Path
) -> None:
    tail = [helper.make_node("Concat", ["logits", "token"], ["scores"], axis=1)]
    token = np.ones((2, 2), np.float32)
    token[1] += different
    proto = classifier(tail, [value("scores", [2, 7])], (2, 3, 8, 8), weights={"token": token})
    loaded = load(proto, tmp_path)
    assert ["2 at a time" in note for note in loaded.notes] == [True] * different
    assert_agrees(loaded)


def test_scores_that_are_mixed_up_are_found_beside_nan(tmp_path: Path) -> None:
    """A batch of 1 whose scores are NaN for one class still needs its reshape freed."""
    offset = np.array([np.nan, 0, 0, 0, 0], np.float32)
    tail = [
        helper.make_node("Reshape", ["logits", "shape"], ["flat scores"]),
        helper.make_node("Add", ["flat scores", "offset"], ["scores"]),
    ]
    weights = {"shape": np.array([1, -1]), "offset": offset}
    outputs = [value("scores", [1, 5])]
    assert_agrees(load(classifier(tail, outputs, (1, 3, 8, 8), weights=weights), tmp_path))
