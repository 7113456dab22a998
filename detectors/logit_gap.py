"""How far the logits of clean images are from a class, and what that says of its pattern's size.

To first order a pattern that makes a model say t has to raise the logit of t by the gap to the
largest one, so that its size grows in proportion to the gap. Classes have gaps of their own: they
are small for a class that was frequent in the training, and for one that means "anything else".
Such a class is easy to reach without a backdoor. None of this is from a paper on backdoors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from detectors.gamma import Array

#: Gaps down to this share of the median class's are usual: in clean models the logarithm of a gap
#: has a standard deviation of 0.11 over the classes (fixtures/results/joint.md), and exp(-2 x 0.11)
#: is 0.8.
USUAL = 0.8


def logit_gaps(logits: Tensor) -> Array:
    """The mean of ``max_k logit_k - logit_t`` over the images that are not taken for t ``[K]``.

    Args:
        logits: of clean images ``[n, K]``.

    Returns:
        Not negative; 0 for a class that all images are taken for.
    """
    gaps = logits.amax(1, keepdim=True) - logits
    others = torch.ones_like(gaps, dtype=torch.bool).scatter_(1, logits.argmax(1)[:, None], False)
    mean = gaps.where(others, 0.0).sum(0) / others.sum(0).clamp_min(1)
    return np.asarray(mean.double().cpu().numpy(), dtype=np.float64)


def shares(gaps: Array) -> Array:
    """How much of a class's statistic 1 / size counts ``[K]``, in (0, 1].

    1 for gaps of ``USUAL`` times the median or more. Below that the statistic counts in proportion
    to the gap, as if the class were no nearer than is usual. It can only make a class less
    suspicious, and leaves nearly all as they are.
    """
    known = gaps[np.isfinite(gaps) & (gaps > 0)]
    if not len(known):
        return np.ones(len(gaps))
    share = gaps / (USUAL * np.median(known))
    return np.where(np.isfinite(share) & (share > 0), np.minimum(share, 1.0), 1.0)
