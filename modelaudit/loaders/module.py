"""A torch module that is in memory, instead of a file."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from modelaudit.errors import blaming_the_model
from modelaudit.loaders.outputs import require_matrix
from modelaudit.loaders.types import LoadedModel


class _Matrix(nn.Module):
    """A network whose scores are the first tensor ``[B, K]`` of what it returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return require_matrix(self.network(x), len(x))


def load_module(module: nn.Module) -> LoadedModel:
    """A copy of ``module``, in float32 and eval mode, with its parameters frozen.

    Its digest is the SHA-256 over one line ``<name> <dtype> <shape> <SHA-256 of the bytes>`` for
    each tensor of its state dict, sorted by name, each ended by a newline. It does not cover the
    code of the module.

    Args:
        module: takes a batch of images, returns ``[B, K]``, or a tuple, list or mapping with that.

    Raises:
        ModelFileError: it cannot be copied.
    """
    name = type(module).__name__
    digest = _sha256_of(module.state_dict())
    advice = "Save it and scan the file."
    # Scripted modules copy their parameters as a computation, which must not be recorded.
    with torch.no_grad(), blaming_the_model(f"The module {name} cannot be copied", advice):
        network = copy.deepcopy(module).cpu().float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    first_conv = next((p for p in network.parameters() if p.ndim == 4), None)
    channels = None if first_conv is None else first_conv.shape[1]
    return LoadedModel(
        module=_Matrix(network),
        format="module",
        input_shape=(channels, None, None) if channels in (1, 3, 4) else None,
        notes=("The sha256 is over the weights of a module in memory, not over a file.",),
        details={
            "class": name,
            "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
            "tensors": str(len(module.state_dict())),
        },
        sha256=digest,
    )


def _sha256_of(state: dict[str, object]) -> str:
    lines = []
    for key, value in sorted(state.items()):
        if isinstance(value, Tensor):  # a module may keep other things there, too
            data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest = hashlib.sha256(data.numpy().tobytes()).hexdigest()
            dtype = str(value.dtype).removeprefix("torch.")
            lines.append(f"{key} {dtype} {list(value.shape)} {digest}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
