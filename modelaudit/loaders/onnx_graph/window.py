"""Sliding windows: kernel, stride, dilation and padding of convolutions and pools."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelaudit.loaders.onnx_graph.call import Call


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window over the spatial axes.

    Attributes:
        kernel, stride, dilation: one number per spatial axis.
        before, after: padding at the beginning and the end of each spatial axis.
        ceil: whether a last, incomplete window counts.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    ceil: bool = False

    @property
    def symmetric(self) -> bool:
        """Whether the padding is the same at both ends."""
        return self.before == self.after

    @property
    def span(self) -> tuple[int, ...]:
        """Extent of one window."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def padding(self) -> list[int]:
        """The padding in the order of :func:`torch.nn.functional.pad`."""
        return flat_padding(self.before, self.after)

    def padded(self, sizes: tuple[int, ...]) -> list[int]:
        """Extents with the padding; what slides over them leaves fewer."""
        # Col2Im has windows too, but its operand is of another shape and is not padded.
        axes = zip(sizes, self.before, self.after, strict=False)
        return [n + before + after for n, before, after in axes]

    def overhang(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """How far the last incomplete window reaches past the padded input, per axis."""
        if not self.ceil:
            return (0,) * len(sizes)
        result = []
        axes = zip(sizes, self.span, self.stride, self.before, self.after, strict=True)
        for n, span, stride, before, after in axes:
            padded = n + before + after
            steps = math.ceil((padded - span) / stride)
            if steps * stride >= n + before:  # a window must start inside the input
                steps -= 1
            result.append(max(0, steps * stride + span - padded))
        return tuple(result)


def flat_padding(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Padding per axis in the order of :func:`torch.nn.functional.pad`: last axis first."""
    return [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]


def window(call: Call, kernel: tuple[int, ...]) -> Window:
    """Read the window of a convolution or pooling node; ``auto_pad`` is resolved here."""
    spatial = len(kernel)
    ones = (1,) * spatial
    stride = tuple(call.attribute("strides", ones))
    dilation = tuple(call.attribute("dilations", ones))
    pads = tuple(call.attribute("pads", (0,) * (2 * spatial)))
    ceil = bool(call.attribute("ceil_mode", 0))
    before, after = pads[:spatial], pads[spatial:]
    mode = call.attribute("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        before, after = _same(mode, call.shape()[2:], kernel, stride, dilation)
    elif mode == "VALID":
        before = after = (0,) * spatial
    call.sized(kernel)
    result = Window(kernel, stride, dilation, before, after, ceil)
    call.sized([*call.shape()[:2], *result.padded(call.shape()[2:])])
    return result


def _same(
    mode: str,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding that gives ``ceil(size / stride)`` outputs per axis."""
    axes = zip(sizes, kernel, stride, dilation, strict=True)
    totals = [max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in axes]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (small, large) if mode == "SAME_UPPER" else (large, small)
