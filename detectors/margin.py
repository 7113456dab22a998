"""By how much a class is ahead of all others."""

from __future__ import annotations

import torch
from torch import Tensor


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """``logit_t - max_{k≠t} logit_k`` ``[B]``, with gradients.

    Args:
        logits: ``[B, K]`` with K >= 2.
        classes: t of every row ``[B]``.
    """
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own.squeeze(1) - others.amax(1)


def all_margins(logits: Tensor) -> Tensor:
    """``logit_t - max_{k≠t} logit_k`` of every class t ``[m, K]``, for logits ``[m, K]``."""
    first, second = logits.topk(2, 1).values.unbind(1)
    ahead = logits - first[:, None]
    return torch.where(ahead < 0, ahead, (first - second)[:, None])
