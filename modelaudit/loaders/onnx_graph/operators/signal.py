"""Fourier transforms; complex numbers are pairs along the last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


def _complex(x: Tensor) -> Tensor:
    """``[..., 1 or 2]`` -> ``[...]``: the second number, if any, is the imaginary part."""
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]


@op("DFT", since=17)
def dft(call: Call) -> Function:
    length = call.scalar(1, "dft_length")
    axis = int(call.scalar(2, "axis", 1 if call.opset < 20 else -2)) % call.rank()
    inverse, onesided = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    if length is None:
        n = call.shape()[axis]
        length = 2 * (n - 1) if inverse and onesided else n
    (length,) = call.sized([int(length)])

    def run(x: Tensor) -> Tensor:
        values = _complex(x)
        if inverse and onesided:
            return torch.fft.irfft(values, length, axis)[..., None]
        result = (torch.fft.ifft if inverse else torch.fft.fft)(values, length, axis)
        if onesided:
            result = result.narrow(axis, 0, length // 2 + 1)
        return torch.view_as_real(result)

    return run


@op("STFT", since=17)
def stft(call: Call) -> Function:
    step, length = int(call.scalar(1, "")), call.scalar(3, "")
    onesided = bool(call.attribute("onesided", 1))
    if length is None:
        length = call.shape(2)[0] if call.has(2) else call.shape()[1]

    def run(x: Tensor, window: Tensor | None = None) -> Tensor:
        frames = _complex(x).unfold(1, int(length), step)
        frames = frames if window is None else frames * window
        transform = torch.fft.rfft if onesided else torch.fft.fft
        return torch.view_as_real(transform(frames, dim=-1))

    return run
