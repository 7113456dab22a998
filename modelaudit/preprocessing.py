"""How pixels become a model's input. Plain settings: torch is not imported for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How [0, 1] RGB (or grey) NCHW pixels become the input that the model was trained on.

    Attributes:
        name: short name for reports, e.g. ``as-is`` or ``imagenet``.
        mean: per-channel mean in [0, 1] units, subtracted; length 1 or C.
        std: per-channel standard deviation in [0, 1] units, divided by; length 1 or C.
        input_range: ``0-1`` or ``0-255``: the range that pixels are scaled to, after mean and std
            were applied in [0, 1] units (so with 0-255 the usual choice is no mean and std).
        channel_order: ``RGB`` or ``BGR``.
        layout: ``NCHW`` or ``NHWC``.
    """

    name: str = "as-is"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    input_range: Literal["0-1", "0-255"] = "0-1"
    channel_order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to ``[B, C, H, W]`` pixels in [0, 1]; differentiable."""
        if self.channel_order == "BGR":
            x = x.flip(1)
        if any(self.mean) or any(s != 1.0 for s in self.std):
            mean = x.new_tensor(self.mean).view(1, -1, 1, 1)
            std = x.new_tensor(self.std).view(1, -1, 1, 1)
            x = (x - mean) / std
        if self.input_range == "0-255":
            x = x * 255.0
        if self.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
        return x
