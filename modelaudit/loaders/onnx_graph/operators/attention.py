"""Scaled dot-product attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.convert import torch_dtype
from modelaudit.loaders.onnx_graph.registry import Function, op


@dataclass(frozen=True)
class _Visible:
    """Which keys a query may attend to, apart from the mask that the node is given.

    Attributes:
        causal: only those that are not later than the query.
        left, right: at most this many before and after it; -1 for any number.
    """

    causal: bool
    left: int
    right: int

    def __call__(
        self, queries: int, keys: int, past: int, lengths: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """True where visible, ``[queries, keys]`` or ``[B, 1, queries, keys]``; None for all.

        Args:
            queries, keys: their numbers.
            past: how many keys come from the cache, that is before the first query.
            lengths: of the keys per batch element, without padding; the queries are the last.
            device: of the result.
        """
        unlimited = not self.causal and self.left < 0 and self.right < 0
        if unlimited and lengths is None:
            return None
        ends = None if lengths is None else lengths.to(device).reshape(-1, 1, 1, 1)
        first: Tensor | int = past if ends is None else ends - queries
        i = torch.arange(queries, device=device)[:, None] + first
        j = torch.arange(keys, device=device)
        visible = (j < ends) if ends is not None else torch.ones_like(i + j, dtype=torch.bool)
        if self.causal:
            visible = visible & (j <= i)
        if self.left >= 0:
            visible = visible & (i - j <= self.left)
        if self.right >= 0:
            visible = visible & (j - i <= self.right)
        return visible


def _heads(x: Tensor, count: int | None) -> Tensor:
    """``[B, T, H * D]`` -> ``[B, H, T, D]``; four axes are there already."""
    return x if x.dim() == 4 else x.unflatten(-1, (count or 1, -1)).transpose(1, 2)


def _bias(mask: Tensor | None, visible: Tensor | None, q: Tensor, keys: int) -> Tensor | None:
    """What is added to the scores: the mask, which may lack the last keys, and what is hidden."""
    if mask is not None:
        mask = _additive(mask, q) if mask.dtype == torch.bool else mask
        mask = F.pad(mask, (0, keys - mask.shape[-1]), value=-math.inf)
    if visible is None:
        return mask
    hidden = _additive(visible, q)
    return hidden if mask is None else mask + hidden


def _additive(visible: Tensor, q: Tensor) -> Tensor:
    zero = torch.zeros(visible.shape, dtype=q.dtype, device=q.device)
    return zero.masked_fill(~visible, -math.inf)


@op("Attention", since=23)
def attention(call: Call) -> Function:
    """Query, key and value ``[B, H, T, D]`` or ``[B, T, H * D]``, mask, past key, past value."""
    q_heads, kv_heads = call.attribute("q_num_heads"), call.attribute("kv_num_heads")
    scale, softcap = call.attribute("scale"), call.attribute("softcap", 0.0)
    mode, outputs = call.attribute("qk_matmul_output_mode", 0), call.outputs
    left, right = (call.attribute(f"{side}_window_size", -1) for side in ("left", "right"))
    visible = _Visible(bool(call.attribute("is_causal", 0)), left, right)
    precision, joined = call.attribute("softmax_precision", 0), call.rank() == 3
    dtype = torch_dtype(precision) if precision else None
    # torch's kernel leaves open what a query that may attend to nothing returns; here it is zero.
    stepwise = outputs >= 4 or bool(softcap) or call.has(6) or (left, right) != (-1, -1)

    def run(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        mask, past_k, past_v, lengths = [*rest, None, None, None, None][:4]
        q, k, v = _heads(q, q_heads), _heads(k, kv_heads), _heads(v, kv_heads)
        past = 0
        if past_k is not None and past_v is not None:
            past = past_k.shape[2]
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        present = (k, v)
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        bias = _bias(mask, visible(q.shape[2], k.shape[2], past, lengths, q.device), q, k.shape[2])
        stages: tuple[Tensor, ...] = ()
        if stepwise:
            y, stages = _explicit(q, k, v, bias, scale, softcap, dtype)
        else:
            y = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
        y = y.transpose(1, 2).flatten(2) if joined else y
        return y if outputs == 1 else (y, *present, *stages[mode : mode + 1])[:outputs]

    return run


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float | None,
    softcap: float,
    dtype: torch.dtype | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Attention step by step: result, and the scores in the order of ``qk_matmul_output_mode``."""
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1]))
    capped = softcap * torch.tanh(scores / softcap) if softcap else scores
    biased = capped if bias is None else capped + bias.to(capped.dtype)
    empty = (biased == -math.inf).all(-1, keepdim=True)
    weights = torch.softmax(biased, -1, dtype=dtype).masked_fill(empty, 0.0).to(v.dtype)
    return weights @ v, (scores, capped, biased, weights)
