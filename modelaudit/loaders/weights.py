"""Read files that hold weights without a graph: names and tensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError, reason_of
from modelaudit.loaders.archive import member_names

_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which can hold nothing else.

    Raises:
        ModelFileError: damaged.
    """
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is a damaged safetensors file: {error}") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch state dict, also one under ``state_dict``, ``model`` or the like.

    Raises:
        UnsafeModelError: the file holds objects that need code, such as a whole pickled module, or
            is a zip bomb.
        ModelFileError: damaged, or without weights.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            member_names(path)
    return _find_weights(path, _unpickle(path))


def _unpickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
        # An unknown operand is what garbage looks like; it can also be a newer pickle protocol.
        if refused is None and ("nsupported operand" in str(error) or "nsupp" not in str(error)):
            raise ModelFileError(
                f"{path} is a damaged PyTorch file, or a pickle that torch.save did not write; "
                "nothing of it was run. Save the weights again with torch.save or safetensors; "
                "convert a scikit-learn model with skl2onnx."
            ) from error
        what = f" ({refused[1]})" if refused else ""
        raise UnsafeModelError(
            f"{path} is refused: it holds more than weights{what}, and reading that would run "
            "code from the file. If you trust it, load it yourself and save the weights alone: "
            "torch.save(model.state_dict(), 'weights.pth') or safetensors, to be used with "
            "--arch; or export it with torch.onnx.export or torch.export.save."
        ) from error
    # torch.load raises many types on damaged files (RuntimeError, EOFError, KeyError, ...).
    except Exception as error:
        reason = reason_of(error)[:200]
        raise ModelFileError(f"{path} is a damaged PyTorch file: {reason}") from error


def _find_weights(path: Path, content: object) -> dict[str, Tensor]:
    """The mapping of names to tensors in ``content``, up to two levels down."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
        content = next((content[key] for key in _NESTED_KEYS if key in content), None)
    raise ModelFileError(
        f"{path} holds no state dict; expected a mapping of names to tensors, or one under "
        f"{', '.join(_NESTED_KEYS)}."
    )
