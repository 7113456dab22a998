"""Any batch size, also for models that were exported for one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelaudit.errors import ModelFileError

# Sums in another order may change float32 scores by this much of their variation between images,
# plus this much of their size. Mixed-up images change them by about their variation.
_OF_VARIATION, _OF_SIZE = 1e-2, 1e-5
# Where values are rounded to 8 bits on the way, such a change may put some on the next step.
OF_QUANTISED_VARIATION = 0.3


class Vectorized(nn.Module):
    """Runs a module for one image on a batch with :func:`torch.vmap`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...]`` -> ``[B, K]``."""
        return torch.vmap(lambda image: self.module(image[None])[0])(x)


class Chunked(nn.Module):
    """Runs a module for ``size`` images on a batch, chunk by chunk; the last one is padded."""

    def __init__(self, module: nn.Module, size: int) -> None:
        super().__init__()
        self.module = module
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...]`` -> ``[B, K]``."""
        missing = -len(x) % self.size
        padded = F.pad(x, [0] * (2 * x.dim() - 1) + [missing]) if missing else x
        return torch.cat([self.module(chunk) for chunk in padded.split(self.size)])[: len(x)]


def any_batch(
    module: nn.Module, shape: tuple[int, ...], stated: int | None
) -> tuple[nn.Module, int, str | None]:
    """Find a way to run ``module`` with any batch size, and verify it on random images.

    Args:
        module: one batch of images -> scores ``[B, K]``.
        shape: of one image.
        stated: the batch size that the file fixes; ``None`` if it leaves it open.

    Returns:
        What to run, the number of scores K, and a note where it is slow.

    Raises:
        RuntimeError, ValueError: the module does not even run with the stated batch size.
    """
    size = stated or 2  # torch.export treats a batch of one as a case of its own
    count = 3 if size == 1 else 2 * size
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.cat([module(part) for part in images.split(size)])
    classes = expected.shape[1]
    if agrees(module, images, expected) and agrees(module, images[:1], expected[:1]):
        return module, classes, None
    reason = f"The file only works with a batch of {size}"
    vectorized = Vectorized(module)
    if size == 1 and agrees(vectorized, images, expected):
        slower = f"{reason}; it runs vectorized over images, which is slower."
        return vectorized, classes, slower
    slow = f"{reason}; it runs {size} at a time, which is slow. Export with a dynamic batch."
    return Chunked(module, size), classes, slow


@torch.no_grad()
def agrees(
    module: nn.Module, images: Tensor, expected: Tensor, share: float = _OF_VARIATION
) -> bool:
    """Whether the module returns the expected scores for the whole batch.

    ``share``: of their variation between images, by which they may differ.
    """
    try:
        found = module(images)
    except (ModelFileError, RuntimeError, ValueError):
        return False
    # Scores that are not finite must be equal; they say nothing about the size of the others.
    finite = expected.where(expected.isfinite(), torch.nan)
    variation = (finite - finite.nanmean(0)).abs().nan_to_num(0).max()
    limit = float(share * variation + _OF_SIZE * finite.abs().nan_to_num(0).max())
    return found.shape == expected.shape and bool(
        torch.isclose(found, expected, rtol=0, atol=limit, equal_nan=True).all()
    )
