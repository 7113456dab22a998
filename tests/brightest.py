"""A model whose class is the brightest column of the image, and images for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

K = 5
SIZE = 6


def brightest(
    path: Path,
    layout: str = "NCHW",
    channels: int = 3,
    tail: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """An ONNX model whose class is the brightest of the first 5 columns.

    ``tail`` is the operator after the logits, or ``NaN``, which is added to them.
    """
    nchw = layout == "NCHW"
    shape = ["batch", channels, SIZE, SIZE] if nchw else ["batch", SIZE, SIZE, channels]
    axes = [1, 2] if nchw else [1, 3]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["columns"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["columns", "pick"], ["logits"]),
    ]
    weights = {"pick": 10 * np.eye(SIZE, K, dtype=np.float32)}
    if tail == "NaN":
        nodes.append(helper.make_node("Add", ["logits", "nan"], ["scores"]))
        weights["nan"] = np.full(K, np.nan, np.float32)
    elif tail:
        nodes.append(helper.make_node(tail, ["logits"], ["scores"]))
    output = "scores" if tail else "logits"
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", K])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    helper.set_model_props(proto, dict(metadata or {}))
    onnx.save(proto, str(path))
    return path


def write_images(directory: Path, folders: Sequence[str] = tuple("01234")) -> Path:
    """Colour images of class c, in the c-th of ``folders``: column c is bright."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(folders):
        folder = directory / name
        folder.mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
            pixels[:, c] += 150
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return directory
