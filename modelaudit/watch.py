"""Watch the operators of a forward pass.

They are seen where torch dispatches them (``__torch_dispatch__``), so that it makes no difference
whether a model consists of modules, of an imported graph or of a script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: The operators that convolve; scripts call the second one.
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten._convolution.default)
#: Called with an operator, its arguments and its result.
See = Callable[[Any, tuple[Any, ...], Any], None]


class Watch(TorchDispatchMode):
    """Shows every operator that runs, and changes nothing.

    What it shows are the tensors that autograd works with: once the call has returned to Python,
    gradients can be taken with respect to them.
    """

    def __init__(self, see: See) -> None:
        super().__init__()
        self._see = see

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._see(func, args, result)
        return result


class FeaturesUnavailable(Exception):
    """The model does not show what was asked for; the message says why, for a report."""
