"""Read weights without a graph (safetensors, PyTorch state dict) into a given architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from modelaudit.errors import ModelFileError, UsageError
from modelaudit.loaders.architectures import Architecture, resolve_architecture
from modelaudit.loaders.fit import fit, strip_prefixes
from modelaudit.loaders.nearest import advice
from modelaudit.loaders.types import LoadedModel, LoadOptions
from modelaudit.loaders.weights import read_safetensors, read_state_dict


def load_safetensors(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a safetensors file into ``options.arch``; see :func:`load_state_dict`."""
    weights = read_safetensors(path)
    architecture = resolve_architecture(_require_arch(path, options, weights))
    return _build(path, weights, architecture, options.num_classes, "safetensors")


def load_state_dict(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a PyTorch state dict into ``options.arch``; nothing in the file is executed.

    The state dict may lie under ``state_dict``, ``model`` or the like, and its keys may carry the
    prefixes of wrappers (``module.``, ``model.``, ``_orig_mod.``, or one that all of them share).

    Args:
        path: written by ``torch.save``.
        options: ``arch`` is required; ``num_classes`` is read from the weights if not given.

    Raises:
        UsageError: ``arch`` is missing or cannot be built.
        UnsafeModelError: the file holds objects that need code, such as a whole pickled module.
        ModelFileError: damaged, no weights, or weights of another architecture.
    """
    # Read first: that a file is refused as unsafe is worth more than that --arch is missing.
    weights = read_state_dict(path)
    architecture = resolve_architecture(_require_arch(path, options, weights))
    return _build(path, weights, architecture, options.num_classes, "state-dict")


def _require_arch(path: Path, options: LoadOptions, weights: Mapping[str, Tensor]) -> str:
    if options.arch is None:
        raise UsageError(
            f"{path} holds weights without a graph. Give --arch with a torchvision model name "
            "(such as --arch resnet18) or --arch package.module:factory for your own code, or "
            f"export the model to ONNX or TorchScript.\n{advice(weights)}"
        )
    return options.arch


def _build(
    path: Path,
    weights: Mapping[str, Tensor],
    architecture: Architecture,
    num_classes: int | None,
    file_format: str,
) -> LoadedModel:
    # A number that is guessed from the wrong file would mislead, so the message leaves it out.
    asked = f" with {num_classes} classes" if num_classes is not None else ""
    if num_classes is None:
        num_classes = _infer_classes(architecture, weights)
    module = architecture.build(num_classes)
    wanted = module.state_dict()
    weights = strip_prefixes(weights, set(wanted))
    _check_channels(path, architecture, wanted, weights)
    mismatch = fit(wanted, weights)
    if mismatch:
        # The user's own code is no torchvision model.
        near = f"{advice(weights)}\n" if architecture.from_torchvision else ""
        mismatch.require_none(
            f"The weights in {path} do not fit --arch {architecture.name}{asked}",
            f"{near}Give the architecture that the weights were trained with.",
        )
    module.load_state_dict({key: weights[key] for key in wanted if key in weights}, strict=False)
    module.float().eval().requires_grad_(False)
    first_conv = next((p for p in module.parameters() if p.ndim == 4), None)
    return LoadedModel(
        module=module,
        format=file_format,
        input_shape=(first_conv.shape[1], None, None) if first_conv is not None else None,
        num_classes=num_classes,
        details={
            "arch": architecture.name,
            "parameters": f"{sum(p.numel() for p in module.parameters()):,}",
            "tensors": str(len(weights)),
        },
    )


def _infer_classes(architecture: Architecture, weights: Mapping[str, Tensor]) -> int | None:
    """K from the layer whose shape depends on it, else from the last layer in the file.

    ``None`` if the architecture fixes it itself.
    """
    if not architecture.takes_num_classes:
        return None
    head = architecture.head_shape()
    if head is not None:
        key, axis = head
        for stage_key, value in strip_prefixes(weights, {key}).items():
            if stage_key == key and value.ndim > axis:
                return value.shape[axis]
    for key, value in reversed(list(weights.items())):
        if value.ndim == 2 or (value.ndim == 1 and key.endswith("bias")):
            return value.shape[0]
    return None


def _check_channels(
    path: Path,
    architecture: Architecture,
    wanted: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> None:
    key = next((key for key, value in wanted.items() if value.ndim == 4), None)
    if key is None or key not in weights or weights[key].ndim != 4:
        return
    expected, found = wanted[key].shape[1], weights[key].shape[1]
    if expected != found:
        advice = (
            "torchvision's models take 3; give --arch package.module:factory that builds the "
            "model with the right number."
            if architecture.from_torchvision
            else "Give a factory that builds the model with the right number."
        )
        raise ModelFileError(
            f"The first convolution in {path} ({key}) takes {found} channels, the one of --arch "
            f"{architecture.name} {expected}. {advice}"
        )
