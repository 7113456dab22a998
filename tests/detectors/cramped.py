"""A model that memory runs out for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Cramped(nn.Module):
    """A model for which there is room for so many images: at hand, and in graphs that are kept.

    Attributes:
        most: images that were in memory at once.
        failures: how often there was no room.
    """

    def __init__(self, model: nn.Module, room: float) -> None:
        super().__init__()
        self.model, self.room = model, room
        self.kept, self.most, self.failures = 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]``; raises ``torch.OutOfMemoryError`` where there is no room."""
        images = self.kept + len(x)
        if images > self.room:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.most = max(self.most, images)
        logits: Tensor = _Remembered.apply(self.model(x), self)
        return logits


class _Share:
    """The images of one batch, in memory as long as this lives."""

    def __init__(self, owner: Cramped, images: int) -> None:
        self.owner, self.images = owner, images
        owner.kept += images

    def __del__(self) -> None:
        self.owner.kept -= self.images


class _Remembered(torch.autograd.Function):
    """The identity, with a share of the room for as long as the graph lives."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, owner: Cramped) -> Tensor:
        """``logits`` ``[B, K]``."""
        ctx.share = _Share(owner, len(logits))
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient as it comes; what a graph has kept is free from here on."""
        ctx.share = None
        return gradients[0], None
