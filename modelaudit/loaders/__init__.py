"""Read a model file: what it is by its content, then the loader for that format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from modelaudit.errors import blaming_the_model
from modelaudit.loaders.file_kind import FileKind, file_kind, require_readable
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.loaders.huggingface.files import HuggingFaceFiles, huggingface_files
from modelaudit.loaders.types import Layout, LoadedModel, LoadOptions

__all__ = ["Layout", "LoadOptions", "LoadedModel", "load_model", "sha256_of"]

_WITHOUT_GRAPH = ("safetensors", "state-dict")


def load_model(path: Path, options: LoadOptions | None = None) -> LoadedModel:
    """A model file as a differentiable module.

    The content decides about the format, the extension only where the content is ambiguous.

    Args:
        path: an ONNX file, a TorchScript or torch.export archive, weights (safetensors, PyTorch
            state dict), or a Hugging Face folder; without ``--arch`` also a file in one.
        options: what the user says about the file.

    Raises:
        ModelFileError: missing, empty, damaged or of a kind that is not supported.
        UnsafeModelError: reading it would execute code from the file.
        UsageError: weights without a graph and no usable ``--arch``.
    """
    path = Path(path)
    options = options or LoadOptions()
    advice = (
        "The file is damaged, or uses what this version does not know: copy it again, or export it "
        "again or to another format."
    )
    with blaming_the_model(f"{path} cannot be loaded", advice):  # parsers raise anything
        loaded = _load(path, options)
    if options.arch is not None and loaded.format not in _WITHOUT_GRAPH:
        note = f"--arch {options.arch} is ignored: the {loaded.format} file holds its own graph."
        loaded = replace(loaded, notes=(*loaded.notes, note))
    return loaded


def _load(path: Path, options: LoadOptions) -> LoadedModel:
    folder = huggingface_files(path) if path.is_dir() or options.arch is None else None
    if folder is not None:
        return _huggingface(folder, options)
    require_readable(path)
    return _LOADERS[file_kind(path)](path, options)


# The loaders' libraries are imported when they are needed: onnx and torchvision are slow to load.
def _huggingface(files: HuggingFaceFiles, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.huggingface.load import load_huggingface

    return load_huggingface(files, options)


def _onnx(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.onnx_file import load_onnx

    return load_onnx(path, options)


def _torchscript(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.torchscript import load_torchscript

    return load_torchscript(path, options)


def _pt2(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.pt2 import load_pt2

    return load_pt2(path, options)


def _state_dict(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.state_dict import load_state_dict

    return load_state_dict(path, options)


def _safetensors(path: Path, options: LoadOptions) -> LoadedModel:
    from modelaudit.loaders.state_dict import load_safetensors

    return load_safetensors(path, options)


_LOADERS: Mapping[FileKind, Callable[[Path, LoadOptions], LoadedModel]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "pt2": _pt2,
    "state-dict": _state_dict,
    "safetensors": _safetensors,
}
