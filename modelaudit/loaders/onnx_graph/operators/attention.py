"""Scaled dot-product attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op


def _heads(x: Tensor, count: int | None) -> Tensor:
    """``[B, T, H * D]`` -> ``[B, H, T, D]``; four axes are there already."""
    return x if x.dim() == 4 else x.unflatten(-1, (count or 1, -1)).transpose(1, 2)


def _bias(mask: Tensor | None, causal: bool, q: Tensor, k: Tensor, past: int) -> Tensor | None:
    """What is added to the scores: the mask and, where asked for, the causal mask."""
    if mask is not None:
        if mask.dtype == torch.bool:
            zero = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
            mask = zero.masked_fill(~mask, -math.inf)
        mask = F.pad(mask, (0, k.shape[2] - mask.shape[-1]), value=-math.inf)
    if not causal:
        return mask
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(past)
    future = torch.zeros(allowed.shape, dtype=q.dtype, device=q.device)
    future = future.masked_fill(~allowed, -math.inf)
    return future if mask is None else mask + future


@op("Attention", since=23)
def attention(call: Call) -> Function:
    """Query, key and value ``[B, H, T, D]`` or ``[B, T, H * D]``, mask, past key, past value."""
    q_heads, kv_heads = call.attribute("q_num_heads"), call.attribute("kv_num_heads")
    causal, scale = bool(call.attribute("is_causal", 0)), call.attribute("scale")
    softcap, joined = call.attribute("softcap", 0.0), call.rank() == 3
    mode, outputs = call.attribute("qk_matmul_output_mode", 0), call.outputs
    windows = [call.attribute(f"{side}_window_size", -1) for side in ("left", "right")]
    if call.has(6) or windows != [-1, -1]:
        raise ValueError("Attention with padded keys or a local window is not supported")

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_k: Tensor | None = None,
        past_v: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        q, k, v = _heads(q, q_heads), _heads(k, kv_heads), _heads(v, kv_heads)
        stages: tuple[Tensor, ...]
        past = 0
        if past_k is not None and past_v is not None:
            past = past_k.shape[2]
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        present = (k, v)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        bias = _bias(mask, causal, q, k, past)
        if outputs < 4 and not softcap:
            y, stages = F.scaled_dot_product_attention(q, k, v, bias, scale=scale), ()
        else:
            y, stages = _explicit(q, k, v, bias, scale, softcap)
        y = y.transpose(1, 2).flatten(2) if joined else y
        return y if outputs == 1 else (y, *present, *stages[mode : mode + 1])[:outputs]

    return run


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None, softcap: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Attention step by step: result, and the scores in the order of ``qk_matmul_output_mode``."""
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1]))
    capped = softcap * torch.tanh(scores / softcap) if softcap else scores
    biased = capped if bias is None else capped + bias
    empty = (biased == -math.inf).all(-1, keepdim=True)
    weights = torch.softmax(biased, -1).masked_fill(empty, 0.0)
    return weights @ v, (scores, capped, biased, weights)
