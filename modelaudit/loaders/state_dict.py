"""Read weights without a graph (safetensors, PyTorch state dict) into a given architecture."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError, UsageError
from modelaudit.loaders.architectures import Architecture, resolve_architecture
from modelaudit.loaders.types import LoadedModel, LoadOptions

_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_LISTED = 3


def load_safetensors(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a safetensors file into ``options.arch``; see :func:`load_state_dict`."""
    architecture = resolve_architecture(_require_arch(path, options))
    try:
        weights = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is a damaged safetensors file: {error}") from error
    return _build(path, weights, architecture, options.num_classes, "safetensors")


def load_state_dict(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a PyTorch state dict into ``options.arch``; nothing in the file is executed.

    The state dict may lie under ``state_dict``, ``model`` or the like, and its keys may carry the
    prefixes ``module.``, ``model.`` and ``_orig_mod.`` of wrappers.

    Args:
        path: written by ``torch.save``.
        options: ``arch`` is required; ``num_classes`` is read from the weights if not given.

    Raises:
        UsageError: ``arch`` is missing or cannot be built.
        UnsafeModelError: the file holds objects that need code, such as a whole pickled module.
        ModelFileError: damaged, no weights, or weights of another architecture.
    """
    # Read first: that a file is refused as unsafe is worth more than that --arch is missing.
    weights = _find_weights(path, _unpickle(path))
    architecture = resolve_architecture(_require_arch(path, options))
    return _build(path, weights, architecture, options.num_classes, "state-dict")


def _require_arch(path: Path, options: LoadOptions) -> str:
    if options.arch is None:
        raise UsageError(
            f"{path} holds weights without a graph. Give --arch with a torchvision model name "
            "(such as --arch resnet18) or --arch package.module:factory for your own code, or "
            "export the model to ONNX or TorchScript."
        )
    return options.arch


def _unpickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
        # An unknown operand is what garbage looks like; it can also be a newer pickle protocol.
        if refused is None and ("nsupported operand" in str(error) or "nsupp" not in str(error)):
            raise ModelFileError(
                f"{path} is a damaged PyTorch file, or a pickle that torch.save did not write; "
                "nothing of it was run. Save the weights again with torch.save or safetensors."
            ) from error
        what = f" ({refused[1]})" if refused else ""
        raise UnsafeModelError(
            f"{path} is refused: it holds more than weights{what}, and reading that would run "
            "code from the file. If you trust it, load it yourself and save the weights alone: "
            "torch.save(model.state_dict(), 'weights.pth') or safetensors, to be used with "
            "--arch; or export it with torch.onnx.export or torch.jit.trace."
        ) from error
    # torch.load raises many types on damaged files (RuntimeError, EOFError, KeyError, ...).
    except Exception as error:
        raise ModelFileError(f"{path} is a damaged PyTorch file: {_first(error)}") from error


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
    problems = _mismatch(wanted, weights)
    if problems:
        lines = "\n  ".join(problems)
        raise ModelFileError(
            f"The weights in {path} do not fit --arch {architecture.name}{asked}:\n  {lines}\n"
            "Give the architecture that the weights were trained with."
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


def strip_prefixes(weights: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Without the wrappers' prefixes that keep the keys from matching ``wanted``."""
    stages = [dict(weights)]
    while True:
        keys = stages[-1]
        prefix = next((p for p in _PREFIXES if keys and all(k.startswith(p) for k in keys)), None)
        if prefix is None:
            break
        stages.append({key.removeprefix(prefix): value for key, value in keys.items()})
    return max(stages, key=lambda stage: len(wanted & stage.keys()))


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


def _mismatch(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """At most 10 lines on what is missing, left over or of another shape; empty if it fits."""
    missing = [k for k in wanted if k not in weights and not _is_counter(k)]
    unexpected = [k for k in weights if k not in wanted and not _is_counter(k)]
    shapes = [
        f"{k}: {list(weights[k].shape)} in the file, {list(wanted[k].shape)} expected"
        for k in wanted
        if k in weights and weights[k].shape != wanted[k].shape
    ]
    lines: list[str] = []
    for title, items in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
        lines += [f"{title}: {item}" for item in items[:_LISTED]]
    total = len(missing) + len(unexpected) + len(shapes)
    if total > len(lines):
        lines.append(f"... {total - len(lines)} more of {len(wanted)} expected tensors")
    return lines


def _is_counter(key: str) -> bool:
    """BatchNorm's counters: older files lack them, and they do not matter in eval mode."""
    return key.endswith("num_batches_tracked")


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
