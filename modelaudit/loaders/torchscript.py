"""Read a TorchScript archive."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.types import LoadedModel, LoadOptions

# TorchScript is a small language of its own that cannot call Python, but these of its operators
# reach files. They have no place in a classifier, and loading alone can run __setstate__.
_FILE_ACCESS = re.compile(r"\b(?:torch|ops\.aten)\.(save|from_file|load)\(")


class TorchScriptModule(nn.Module):
    """A loaded archive as ``[B, ...] -> [B, K]``, computed in float32 where the file allows it.

    The script runs in torch's simple executor (``optimized_execution(False)``). The default one
    records profiles and compiles anew in the first calls, which costs time and changes with the
    batch size; a search calls the model with shrinking batches. Measured on one CPU core, forward
    and backward, 18 calls with 12 different batch sizes: ResNet-18 0.49 s against 0.64 s by
    default, MobileNetV2 0.45 s against 0.55 s, with the same gradients and, with a fixed batch
    size, the same speed. ``torch.jit.freeze`` would save 10-40 % more, but it turns the weights
    into constants that ``.to(device)`` leaves where they are, so it is not used.

    Args:
        script: the loaded archive.
        dtype: floating-point type of its parameters.
    """

    def __init__(self, script: torch.jit.ScriptModule, dtype: torch.dtype) -> None:
        super().__init__()
        self.script = script.float() if dtype != torch.float32 else script
        self._file_dtype = dtype
        self._compute_dtype = torch.float32
        self._tried = dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]``; raises ``ValueError`` if there are none of that shape."""
        with torch.jit.optimized_execution(False):
            outputs = self._call(x)
        found = first_matrix(outputs, len(x))
        if found is None:
            raise ValueError(f"outputs [{len(x)}, K] expected, got {_shape_of(outputs)}")
        return found

    def _call(self, x: Tensor) -> object:
        """Call the script; a graph with its own dtype inside falls back to the file's dtype."""
        if self._tried:
            return self.script(x.to(self._compute_dtype))
        try:
            outputs = self.script(x.float())
        except RuntimeError:
            self.script = self.script.to(self._file_dtype)
            try:
                outputs = self.script(x.to(self._file_dtype))
            except RuntimeError:  # then the dtype was not the reason
                self.script = self.script.float()
                raise
            self._compute_dtype = self._file_dtype
        self._tried = True
        return outputs


def load_torchscript(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a TorchScript archive; no Python code from the file runs.

    Args:
        path: the archive.
        options: ``num_classes`` is passed on.

    Raises:
        UnsafeModelError: its code reads or writes files.
        ModelFileError: damaged, made for another torch, or not a function of one tensor.
    """
    _refuse_file_access(path)
    script = _load(path)
    schema = _schema(path, script)
    inputs = schema.arguments[1:]  # the first one is self
    required = [argument.name for argument in inputs if not argument.has_default_value()]
    if len(required) > 1 or not inputs:
        raise ModelFileError(
            f"{path} takes {len(required)} inputs ({', '.join(required)}); an image classifier "
            "takes one batch of images. Export a module that does."
        )
    script.eval()
    parameters = list(script.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    dtype = next(iter(dtypes)) if len(dtypes) == 1 else torch.float32
    first_conv = next((p for p in parameters if p.ndim == 4), None)
    channels = first_conv.shape[1] if first_conv is not None else None
    return LoadedModel(
        module=TorchScriptModule(script, dtype).eval(),
        format="torchscript",
        input_shape=(channels, None, None) if channels in (1, 3, 4) else None,
        num_classes=options.num_classes,
        notes=_notes(schema, dtype),
        details={
            "class": str(script.original_name),
            "parameters": f"{sum(p.numel() for p in parameters):,}",
            "tensors": str(len(script.state_dict())),
            "dtype": str(dtype).removeprefix("torch."),
        },
    )


def first_matrix(outputs: object, batch: int) -> Tensor | None:
    """The first tensor ``[batch, K]`` among nested tuples, lists and dicts, in their order."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.ndim == 2 and len(outputs) == batch else None
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        for output in outputs:
            found = first_matrix(output, batch)
            if found is not None:
                return found
    return None


def _load(path: Path) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # Deprecated in favour of torch.export, but the files are around and stay readable.
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelFileError(
                f"{path} cannot be loaded as TorchScript by torch {torch.__version__}: {reason}"
            ) from error


def _schema(path: Path, script: torch.jit.ScriptModule) -> torch.FunctionSchema:
    try:
        forward: Any = script.forward
        return forward.schema
    except (AttributeError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} has no forward method; export the classifier itself."
        ) from error


def _refuse_file_access(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sources = {
                name: archive.read(name).decode("utf-8", errors="replace")
                for name in archive.namelist()
                if name.endswith(".py")
            }
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is a damaged TorchScript archive: {error}") from error
    for name, source in sources.items():
        found = _FILE_ACCESS.search(source)
        if found:
            raise UnsafeModelError(
                f"{path} is refused: its code calls torch.{found[1]} ({name}), which reads or "
                "writes files. A classifier has no need to; export it to ONNX from its source."
            )


def _notes(schema: torch.FunctionSchema, dtype: torch.dtype) -> tuple[str, ...]:
    notes = []
    returned = schema.returns
    if len(returned) != 1 or returned[0].type.kind() != "TensorType":
        kind = returned[0].type.kind().removesuffix("Type").lower() if returned else "nothing"
        notes.append(f"The model returns a {kind}; its first tensor of shape [B, K] is used.")
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        notes.append(f"The weights are {name}; they are computed with in float32 where possible.")
    return tuple(notes)


def _shape_of(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return str(list(outputs.shape))
    return type(outputs).__name__
