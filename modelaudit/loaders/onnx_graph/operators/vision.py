"""Operators of vision models that move a window by values or put windows back together.

torchvision takes a second to import, so that is left to the models that need it.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op
from modelaudit.loaders.onnx_graph.window import flat_padding, window


@op("DeformConv", since=19)
def deform_conv(call: Call) -> Function:
    from torchvision.ops import deform_conv2d

    w = window(call, call.shape(1)[2:])
    if len(w.kernel) != 2 or not w.symmetric:
        raise ValueError("DeformConv is supported for two axes with even padding")

    def run(
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return deform_conv2d(x, offset, weight, bias, w.stride, w.before, w.dilation, mask)

    return run


@op("RoiAlign", since=10)
def roi_align_(call: Call) -> Function:
    from torchvision.ops import roi_align

    default = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    aligned = call.attribute("coordinate_transformation_mode", default) == "half_pixel"
    if call.attribute("mode", "avg") != "avg":
        raise ValueError("RoiAlign with mode 'max' is not supported")
    size = (call.attribute("output_height", 1), call.attribute("output_width", 1))
    call.sized([call.shape(1)[0], call.shape()[1], *size])
    scale, ratio = call.attribute("spatial_scale", 1.0), call.attribute("sampling_ratio", 0)

    def run(x: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        numbered = torch.cat([images[:, None].to(boxes.dtype), boxes], 1)
        return roi_align(x, numbered, size, scale, ratio or -1, aligned)

    return run


@op("Col2Im", since=18)
def col2im(call: Call) -> Function:
    """Windows ``[B, C * window, L]`` are added up to images ``[B, C, *sizes]``."""
    sizes, block = tuple(call.setting(1, "")), tuple(call.setting(2, ""))
    w = window(call, block)
    spans = zip(w.before, sizes, w.after, strict=True)
    padded = call.sized([before + n + after for before, n, after in spans])
    inside = tuple(-n for n in w.before), tuple(-n for n in w.after)
    axes = []
    for n, k, s, d, span in zip(padded, block, w.stride, w.dilation, w.span, strict=True):
        starts = torch.arange(0, n - span + 1, s)
        axes.append(starts[None, :] + d * torch.arange(k)[:, None])  # [window, L] of this axis
    flat = torch.zeros(1, 1, dtype=torch.int64)
    for axis, n in zip(axes, padded, strict=True):
        joined = flat[:, None, :, None] * n + axis[None, :, None, :]
        flat = joined.reshape(flat.shape[0] * axis.shape[0], -1)
    index = flat.flatten().to(call.device)
    batch, channels = call.shape()[0], call.shape()[1] // math.prod(block)
    call.sized([batch, channels, *padded])

    def run(x: Tensor) -> Tensor:
        image = x.new_zeros(batch, channels, math.prod(padded))
        image = image.index_add(2, index, x.reshape(batch, channels, -1))
        return F.pad(image.reshape(batch, channels, *padded), flat_padding(*inside))

    return run


@op("MaxUnpool", since=9)
def max_unpool(call: Call) -> Function:
    w = window(call, tuple(call.attribute("kernel_shape")))
    axes = zip(call.shape()[2:], w.stride, w.kernel, w.before, w.after, strict=True)
    inferred = [(n - 1) * s + k - before - after for n, s, k, before, after in axes]
    inferred = call.sized([*call.shape()[:2], *inferred])
    wanted = call.sized(call.setting(2, "", inferred))
    growth = [(0, want - n) for want, n in zip(wanted, inferred, strict=True)]
    padding = list(itertools.chain(*growth[::-1]))

    def run(x: Tensor, indices: Tensor) -> Tensor:
        flat = x.new_zeros(math.prod(inferred)).index_put((indices.flatten(),), x.flatten())
        return F.pad(flat.reshape(inferred), padding)

    return run
