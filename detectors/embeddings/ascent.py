"""The step of steepest ascent where the size of a pattern is a Euclidean norm."""

from __future__ import annotations

from torch import Tensor

from detectors.rows import broadcastable

# Below this size a gradient has no direction; the step is then zero rather than NaN.
_TINY = 1e-30


def along_gradient(theta: Tensor, gradient: Tensor, delta: Tensor, size: Tensor) -> Tensor:
    """``θ + δ ∇J / ‖∇J‖`` (L-RED paper, Eq. 5) for patterns ``[R, *]``.

    Args:
        gradient: ∇J ``[R, *]``.
        delta: length δ of the step ``[R]``, in the unit of the size.
        size: ‖∇J‖ ``[R]``, the gradient measured as a pattern; a multiple of its L2 norm.
    """
    return theta + broadcastable(delta / size.clamp_min(_TINY), theta) * gradient
