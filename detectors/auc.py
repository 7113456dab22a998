"""The area under the ROC curve, as a count of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def auc(scores: ArrayLike, others: ArrayLike) -> float:
    """How often one of ``scores`` ``[n]`` is larger than one of ``others`` ``[m]``, in [0, 1].

    The Mann-Whitney statistic as a share of all n m pairs; a tie counts half. Neither is empty.
    """
    left, right = np.asarray(scores)[:, None], np.asarray(others)
    return float(((left > right) + 0.5 * (left == right)).mean())
