"""Resizing and sampling.

Every mode of Resize is separable and linear in the input, so each axis is one small matrix, made
once per input shape; the common cases that torch has a kernel for use that kernel.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


@dataclass(frozen=True)
class _Axis:
    """One axis to resize: sizes, scale factor and region of interest."""

    index: int
    size: int
    out: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def _coordinates(axis: _Axis, mode: str) -> np.ndarray:
    """Where each output element lies in input coordinates."""
    i = np.arange(axis.out, dtype=np.float64)
    exact = axis.size * axis.scale  # length of the output before rounding down
    if mode == "asymmetric":
        return i / axis.scale
    if mode == "align_corners":
        return i * ((axis.size - 1) / (exact - 1)) if axis.out > 1 else 0 * i
    if mode == "tf_crop_and_resize":
        start, end = axis.roi
        if axis.out == 1:
            return np.array([0.5 * (start + end) * (axis.size - 1)])
        return (start + i * (end - start) / (axis.out - 1)) * (axis.size - 1)
    if mode == "pytorch_half_pixel" and axis.out == 1:
        return 0 * i
    half_pixel = (i + 0.5) / axis.scale - 0.5
    if mode == "half_pixel_symmetric":
        return half_pixel + axis.size / 2 * (1 - axis.out / exact)
    return half_pixel


_ROUND: dict[str, Function] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _matrix(axis: _Axis, call: Call) -> np.ndarray:
    """Interpolation weights ``[out, size]`` of one axis."""
    mode = call.attribute("mode", "nearest")
    position = _coordinates(axis, call.attribute("coordinate_transformation_mode", "half_pixel"))
    matrix = np.zeros((axis.out, axis.size))
    rows = np.arange(axis.out)
    if mode == "nearest":
        rounding = _ROUND[call.attribute("nearest_mode", "round_prefer_floor")]
        matrix[rows, np.clip(rounding(position), 0, axis.size - 1).astype(int)] = 1
    else:
        stretch = min(1.0, axis.scale) if call.attribute("antialias", 0) else 1.0
        reach = math.ceil((1 if mode == "linear" else 2) / stretch)
        taps = np.floor(position)[:, None] + np.arange(-reach, reach + 2)
        distance = (taps - position[:, None]) * stretch
        if mode == "linear":
            weights = np.clip(1 - np.abs(distance), 0, None)
        else:
            weights = _cubic(distance, call.attribute("cubic_coeff_a", -0.75))
        if call.attribute("exclude_outside", 0):
            weights = np.where((taps < 0) | (taps >= axis.size), 0, weights)
        weights /= weights.sum(1, keepdims=True)
        columns = np.clip(taps, 0, axis.size - 1).astype(int)
        np.add.at(matrix, (rows[:, None], columns), weights)
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        outside = (position < 0) | (position > axis.size - 1)
        matrix[outside] = np.nan  # marks elements that take extrapolation_value
    return matrix


def _axes(call: Call, scales: list[float], sizes: list[int]) -> list[_Axis]:
    """The axes whose extent changes (or that are cropped)."""
    shape, rank = call.shape(), call.rank()
    indices = [axis % rank for axis in call.attribute("axes", range(rank))]
    if sizes:
        scales = [out / shape[i] for out, i in zip(sizes, indices, strict=True)]
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = min(scales) if policy == "not_larger" else max(scales)
            scales = [scale] * len(indices)
            sizes = [math.floor(scale * shape[i] + 0.5) for i in indices]
    else:
        sizes = [math.floor(shape[i] * s) for s, i in zip(scales, indices, strict=True)]
    roi = [0.0] * len(indices) + [1.0] * len(indices)
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        roi = call.setting(1, "roi", roi)
        for i, out in enumerate(sizes):
            if not call.has(3):
                extent = roi[i + len(indices)] - roi[i]
                sizes[i] = math.floor(shape[indices[i]] * extent * scales[i]) or out
    bounds = zip(roi[: len(indices)], roi[len(indices) :], strict=True)
    every = zip(indices, sizes, scales, bounds, strict=True)
    axes = [_Axis(i, shape[i], out, scale, span) for i, out, scale, span in every]
    return [a for a in axes if a.out != a.size or a.scale != 1 or a.roi != (0.0, 1.0)]


def _kernel(call: Call, axes: list[_Axis]) -> Function | None:
    """torch's own kernel for the last two of four axes, where it computes the same."""
    exact = all(math.isclose(a.size * a.scale, a.out, rel_tol=1e-6) for a in axes)
    if call.rank() != 4 or not exact or any(a.index < 2 for a in axes) or len(axes) != 2:
        return None
    if call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        return None
    size, mode = [a.out for a in axes], call.attribute("mode", "nearest")
    transform = call.attribute("coordinate_transformation_mode", "half_pixel")
    resize: Any = functools.partial(F.interpolate, size=size)
    if mode == "nearest":
        floor = call.attribute("nearest_mode", "round_prefer_floor") == "floor"
        return resize if floor and transform == "asymmetric" else None
    corners = transform == "align_corners"
    if min(size) < 2 or (not corners and transform not in ("half_pixel", "pytorch_half_pixel")):
        return None
    if mode == "cubic" and call.attribute("cubic_coeff_a", -0.75) != -0.75:
        return None
    return functools.partial(
        resize, mode="bilinear" if mode == "linear" else "bicubic", align_corners=corners
    )


def _apply(
    x: Tensor, matrices: dict[int, Tensor], outside: dict[int, Tensor], fill: float
) -> Tensor:
    for axis, matrix in matrices.items():
        x = torch.matmul(x.movedim(axis, -1), matrix.t()).movedim(-1, axis)
    for axis, rows in outside.items():
        x = x.index_fill(axis, rows, fill)
    return x


def _resize(call: Call, scales: list[float], sizes: list[int]) -> Function:
    axes = _axes(call, scales, sizes)
    if not axes:
        return torch.clone
    resized = {a.index: a.out for a in axes}
    call.sized([resized.get(i, n) for i, n in enumerate(call.shape())])
    kernel = _kernel(call, axes)
    if kernel is not None:
        return kernel
    for a in axes:
        call.sized([a.out, a.size])
    weights = {a.index: torch.from_numpy(_matrix(a, call)) for a in axes}
    matrices = {i: w.nan_to_num(0).to(call.operand(0)) for i, w in weights.items()}
    marked = {i: w.isnan().any(1).nonzero().flatten() for i, w in weights.items()}
    outside = {i: rows.to(call.device) for i, rows in marked.items() if len(rows)}
    fill = call.attribute("extrapolation_value", 0.0)
    return functools.partial(_apply, matrices=matrices, outside=outside, fill=fill)


@op("Resize", since=11)
def resize(call: Call) -> Function:
    scales, sizes = call.setting(2, "", []), call.setting(3, "", [])
    call.drop(1)
    return _resize(call, scales, sizes)


@op("Upsample", since=7)
@op("Resize", since=10)
def upsample(call: Call) -> Function:
    """Opset 10 and before: asymmetric coordinates, rounded down."""
    old = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    scales = call.setting(1, "scales")
    return _resize(call.with_attributes(**old), scales, [])


@op("GridSample", since=16)
def grid_sample(call: Call) -> Function:
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = call.attribute("mode", "linear")
    return functools.partial(
        F.grid_sample,
        mode=names.get(mode, mode),
        padding_mode=call.attribute("padding_mode", "zeros"),
        align_corners=bool(call.attribute("align_corners", 0)),
    )
