"""Convolution and transposed convolution over one to three spatial axes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op
from modelaudit.loaders.onnx_graph.window import Window, flat_padding, window

_CONVOLUTION: dict[int, Function] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Function] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


@op("Conv")
def conv(call: Call) -> Function:
    w = window(call, call.shape(1)[2:])
    if call.rank() == 2 + len(w.kernel):
        call.at_most([call.shape()[0], call.shape(1)[0], *w.padded(call.shape()[2:])])
    return convolution(call, w)


def convolution(call: Call, w: Window) -> Function:
    """Input, weight, bias -> output, with that window and the groups of the call."""
    groups, function = call.attribute("group", 1), _CONVOLUTION[len(w.kernel)]
    stride, dilation, padding = w.stride, w.dilation, w.padding
    if w.symmetric:
        before = w.before

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return function(x, weight, bias, stride, before, dilation, groups)

        return run

    def run_padded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return function(F.pad(x, padding), weight, bias, stride, 0, dilation, groups)

    return run_padded


def _transposed_padding(
    call: Call, full: list[int], extra: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much to cut off the full result at the beginning and the end of each axis."""
    n = len(full)
    mode, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    pads = tuple(call.attribute("pads", (0,) * (2 * n)))
    if wanted is None and not mode.startswith("SAME"):
        return pads[:n], pads[n:]
    if wanted is None:
        wanted = [size * s for size, s in zip(call.shape()[2:], stride, strict=True)]
    totals = [f + e - want for f, e, want in zip(full, extra, wanted[-n:], strict=True)]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (small, large) if mode == "SAME_UPPER" else (large, small)


@op("ConvTranspose")
def conv_transpose(call: Call) -> Function:
    kernel = call.shape(1)[2:]
    n, ones = len(kernel), (1,) * len(kernel)
    stride = tuple(call.attribute("strides", ones))
    dilation = tuple(call.attribute("dilations", ones))
    extra = tuple(call.attribute("output_padding", (0,) * n))
    groups, function = call.attribute("group", 1), _TRANSPOSED[n]
    sizes = zip(call.shape()[2:], kernel, stride, dilation, strict=True)
    full = [(size - 1) * s + (k - 1) * d + 1 for size, k, s, d in sizes]
    before, after = _transposed_padding(call, full, extra, stride)
    channels = [call.shape()[0], call.shape(1)[1] * groups]
    call.sized([*channels, *full])
    cropped = zip(full, before, after, extra, strict=True)
    call.sized([*channels, *(f - b - a + e for f, b, a, e in cropped)])
    if before == after and min(before) >= 0:
        return lambda x, weight, bias=None: function(
            x, weight, bias, stride, before, extra, groups, dilation
        )
    cut = tuple(e - a for e, a in zip(extra, after, strict=True))
    padding = flat_padding(tuple(-b for b in before), cut)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.pad(function(x, weight, None, stride, 0, 0, groups, dilation), padding)
        return y if bias is None else y + bias.reshape(-1, *ones)

    return run
