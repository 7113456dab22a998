"""Known answers of operators, mostly where versions of the operator set differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.registry import find, supported
from tests.loaders.onnx_files import one_node

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 10


def run(*arguments: object, **attributes: object) -> np.ndarray:
    graph = one_node(*arguments, **attributes)  # type: ignore[arg-type]
    return graph(*[torch.from_numpy(x) for x in arguments[2]]).numpy()  # type: ignore[attr-defined]


def test_softmax_is_flattened_until_opset_12_and_over_one_axis_since_13() -> None:
    flat = np.exp(X.reshape(2, 12))
    expected = (flat / flat.sum(1, keepdims=True)).reshape(X.shape)
    np.testing.assert_allclose(run("Softmax", 11, [X], axis=1), expected, rtol=1e-5)
    exp = np.exp(X)
    expected = exp / exp.sum(1, keepdims=True)
    np.testing.assert_allclose(run("Softmax", 13, [X], axis=1), expected, rtol=1e-5)


def test_softmax_default_axis_differs() -> None:
    old, new = run("Softmax", 12, [X]), run("Softmax", 13, [X])
    np.testing.assert_allclose(old.sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(new.sum(2), 1, rtol=1e-5)


def test_clip_bounds_are_attributes_until_opset_10_and_inputs_since_11() -> None:
    np.testing.assert_array_equal(run("Clip", 6, [X], min=0.5, max=1.0), X.clip(0.5, 1.0))
    bounds = [np.float32(0.5), np.float32(1.0)]
    np.testing.assert_array_equal(run("Clip", 11, [X], bounds), X.clip(0.5, 1.0))
    np.testing.assert_array_equal(run("Clip", 13, [X], [None, bounds[1]]), X.clip(None, 1.0))


def test_slice_bounds_are_attributes_until_opset_9_and_inputs_since_10() -> None:
    expected = X[:, 1:3, -2:]
    attributes = {"starts": [1, -2], "ends": [3, 1000], "axes": [1, 2]}
    np.testing.assert_array_equal(run("Slice", 9, [X], **attributes), expected)
    inputs = [np.array(v) for v in ([1, -2], [3, 2**62], [1, 2])]
    np.testing.assert_array_equal(run("Slice", 10, [X], inputs), expected)


@pytest.mark.parametrize(
    ("start", "end", "step"), [(3, 0, -1), (-1, -(2**62), -1), (-1, -(2**62), -2), (0, 4, 3)]
)
def test_slice_with_steps(start: int, end: int, step: int) -> None:
    inputs = [np.array([v]) for v in (start, end, 2, step)]
    stop = None if end < -4 else end
    np.testing.assert_array_equal(run("Slice", 13, [X], inputs), X[:, :, start:stop:step])


@pytest.mark.parametrize("opset", [11, 13])
def test_axes_of_squeeze_unsqueeze_and_reduce_sum(opset: int) -> None:
    x = X[:, None]
    axes = {"axes": [1]} if opset < 13 else {}
    constants = [np.array([1])] if opset >= 13 else []
    np.testing.assert_array_equal(run("Squeeze", opset, [x], constants, **axes), X)
    np.testing.assert_array_equal(run("Unsqueeze", opset, [X], constants, **axes), x)
    result = run("ReduceSum", opset, [X], constants, keepdims=0, **axes)
    np.testing.assert_allclose(result, X.sum(1), rtol=1e-6)


@pytest.mark.parametrize("opset", [13, 18])
def test_axes_of_reduce_mean(opset: int) -> None:
    axes = {"axes": [-1, 0]} if opset < 18 else {}
    constants = [np.array([-1, 0])] if opset >= 18 else []
    result = run("ReduceMean", opset, [X], constants, **axes)
    np.testing.assert_allclose(result, X.mean((0, 2), keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode: str) -> None:
    amounts = [0, 1, 2, 0, 0, 3]
    expected = np.pad(X, [(0, 0), (1, 0), (2, 3)], mode=mode)  # type: ignore[call-overload]
    np.testing.assert_array_equal(run("Pad", 10, [X], pads=amounts, mode=mode), expected)
    np.testing.assert_array_equal(run("Pad", 13, [X], [np.array(amounts)], mode=mode), expected)
    inputs = [np.array([1, 2, 0, 3]), None, np.array([1, 2])]
    np.testing.assert_array_equal(run("Pad", 18, [X], inputs, mode=mode), expected)


def test_pad_with_negative_amounts_crops() -> None:
    expected = np.pad(X[:, 1:], [(0, 0), (0, 1), (0, 0)], constant_values=7)
    inputs = [np.array([0, -1, 0, 0, 1, 0]), np.float32(7)]
    np.testing.assert_array_equal(run("Pad", 13, [X], inputs), expected)


def test_dropout_is_the_identity() -> None:
    np.testing.assert_array_equal(run("Dropout", 11, [X], ratio=0.5), X)
    np.testing.assert_array_equal(run("Dropout", 13, [X], [np.float32(0.5)]), X)


@pytest.mark.parametrize(
    ("opset", "attributes", "constants"),
    [(11, {"split": [1, 3]}, []), (13, {}, [np.array([1, 3])])],
)
def test_split(opset: int, attributes: dict[str, list[int]], constants: list[np.ndarray]) -> None:
    graph = one_node("Split", opset, [X], constants, outputs=2, axis=2, **attributes)
    first, second = graph(torch.from_numpy(X))
    np.testing.assert_array_equal(first.numpy(), X[:, :, :1])
    np.testing.assert_array_equal(second.numpy(), X[:, :, 1:])


def test_resize_10_is_asymmetric_and_rounds_down() -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    scales = np.array([1, 1, 1, 1.5], np.float32)
    np.testing.assert_array_equal(run("Resize", 10, [x], [scales]).ravel(), [0, 0, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("auto", "expected"), [("SAME_UPPER", [1, 1, 2, 3]), ("SAME_LOWER", [0, 1, 2, 3])]
)
def test_same_padding_puts_the_odd_element_last_or_first(auto: str, expected: list[int]) -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    weight = np.ones((1, 1, 2), np.float32)
    result = run("Conv", 11, [x], [weight], auto_pad=auto)
    x_padded = np.pad(x[0, 0], (0, 1) if auto == "SAME_UPPER" else (1, 0))
    np.testing.assert_array_equal(result.ravel(), x_padded[:-1] + x_padded[1:])
    assert len(result.ravel()) == len(expected)


def test_integer_division_truncates() -> None:
    a, b = np.array([7, -7]), np.array([2, 2])
    np.testing.assert_array_equal(run("Div", 14, [a, b]), [3, -3])


@pytest.mark.parametrize(("axis", "shape"), [(None, (4,)), (1, (3,)), (0, (2, 3)), (-1, (4,))])
def test_broadcasting_before_opset_7_is_aligned_to_an_axis(
    axis: int | None, shape: tuple[int, ...]
) -> None:
    other = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    start = (3 - len(shape) if axis is None else axis) % 3
    aligned = other.reshape(shape + (1,) * (3 - start - len(shape)))
    attributes = {} if axis is None else {"axis": axis}
    result = run("Mul", 6, [X, other], broadcast=1, **attributes)
    np.testing.assert_array_equal(result, X * aligned)


def test_prelu_before_opset_7_has_a_slope_per_channel() -> None:
    slopes = np.array([0.1, 0.2, 0.3], np.float32)
    result = run("PRelu", 6, [-X, slopes])
    np.testing.assert_allclose(result, -X * slopes[:, None], rtol=1e-6)


def test_unsigned_integers_wrap_around_and_stay_unsigned() -> None:
    a, b = np.array([65535, 3], np.uint16), np.array([2, 5], np.uint16)
    np.testing.assert_array_equal(run("Add", 14, [a, b]), a + b)
    np.testing.assert_array_equal(run("Sub", 14, [a, b]), a - b)
    assert run("Sub", 14, [a, b]).dtype == np.uint16


def test_unsigned_integers_beyond_int64_are_refused() -> None:
    large = np.array([2**63], np.uint64)
    with pytest.raises(ModelFileError, match="beyond"):
        run("Greater", 13, [large, large])


def test_newest_version_that_is_old_enough_wins() -> None:
    assert find("", "Softmax", 12) is find("ai.onnx", "Softmax", 1)
    assert find("", "Softmax", 12) is not find("", "Softmax", 13)
    assert find("", "Softmax", 13) is find("", "Softmax", 99)
    assert find("", "LayerNormalization", 16) is None
    assert len(supported()) >= 170
