"""Read a model file: what it is by its content, then the loader for that format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from modelaudit.errors import ModelFileError
from modelaudit.loaders.file_kind import ACCEPTED, FileKind, convert_with_tf2onnx, file_kind
from modelaudit.loaders.types import Layout, LoadedModel, LoadOptions

__all__ = ["Layout", "LoadOptions", "LoadedModel", "load_model", "sha256_of"]


def load_model(path: Path, options: LoadOptions | None = None) -> LoadedModel:
    """A model file as a differentiable module.

    The content decides about the format, the extension only where the content is ambiguous.

    Args:
        path: an ONNX file, a TorchScript archive, or weights (safetensors, PyTorch state dict).
        options: what the user says about the file.

    Raises:
        ModelFileError: missing, empty, damaged or of a kind that is not supported.
        UnsafeModelError: reading it would execute code from the file.
        UsageError: weights without a graph and no usable ``--arch``.
    """
    path = Path(path)
    options = options or LoadOptions()
    _require_file(path)
    loaded = _LOADERS[file_kind(path)](path, options)
    if options.arch is not None and loaded.format not in ("safetensors", "state-dict"):
        note = f"--arch {options.arch} is ignored: the {loaded.format} file holds its own graph."
        loaded = replace(loaded, notes=(*loaded.notes, note))
    return loaded


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        ModelFileError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror or error}.") from error


def _require_file(path: Path) -> None:
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise ModelFileError(
                f"{path} is a TensorFlow SavedModel, which is not read directly. "
                f"{convert_with_tf2onnx('--saved-model', path)}"
            )
        raise ModelFileError(f"{path} is a directory; expected a model file: {ACCEPTED}.")
    if not path.exists():
        raise ModelFileError(
            f"There is no model file {path}. Check the path; accepted: {ACCEPTED}."
        )
    if not path.is_file():
        raise ModelFileError(f"{path} is not a regular file; expected {ACCEPTED}.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror or error}.") from error
    if empty:
        raise ModelFileError(f"{path} is empty; expected {ACCEPTED}.")


# The loaders' libraries are imported when they are needed: onnx and torchvision are slow to load.
def _onnx(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.onnx_file import load_onnx

    return load_onnx(path, options)


def _torchscript(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.torchscript import load_torchscript

    return load_torchscript(path, options)


def _state_dict(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.state_dict import load_state_dict

    return load_state_dict(path, options)


def _safetensors(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.state_dict import load_safetensors

    return load_safetensors(path, options)


_LOADERS: Mapping[FileKind, Callable[[Path, LoadOptions], LoadedModel]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "state-dict": _state_dict,
    "safetensors": _safetensors,
}
