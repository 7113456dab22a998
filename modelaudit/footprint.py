"""How much a model makes of one image: what decides how many images it is best given at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelaudit.watch import Watch

#: Images in the two batches that are compared. (For a single one torch may run other operators.)
_FEW, _MORE = 2, 3


@torch.no_grad()
def mean_tensor(
    model: Callable[[Tensor], Tensor], input_shape: tuple[int, int, int], device: torch.device
) -> float | None:
    """Values that the tensors which a model makes of an image have in the mean, the image included.

    What it makes whatever the number of images, such as weights in another format, does not count.

    Args:
        model: takes pixels ``[B, C, H, W]``.

    Returns:
        ``None`` where the model fails, or does not do the same for every batch.
    """
    try:
        few, more = (
            _sizes(model, torch.full((n, *input_shape), 0.5, device=device)) for n in (_FEW, _MORE)
        )
    except Exception:  # whatever it is: who needs its outputs will hear of it
        return None
    if len(few) != len(more):
        return None
    grown = [after - before for before, after in zip(few, more, strict=True) if after > before]
    return sum(grown) / len(grown) / (_MORE - _FEW)


def _sizes(model: Callable[[Tensor], Tensor], pixels: Tensor) -> list[int]:
    """Numbers of values of everything that is computed, in its order; the pixels come first."""
    sizes = [pixels.numel()]

    def see(func: Any, args: tuple[Any, ...], result: Any) -> None:
        made = result if isinstance(result, tuple | list) else (result,)
        # Views, and what is changed in place, take no room of their own.
        for one, said in zip(made, func._schema.returns, strict=False):
            if isinstance(one, Tensor) and said.alias_info is None:
                sizes.append(one.numel())

    with Watch(see):
        model(pixels)
    return sizes
