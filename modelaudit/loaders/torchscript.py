"""Read a TorchScript archive."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelaudit.errors import ModelFileError, reason_of
from modelaudit.loaders.outputs import require_matrix
from modelaudit.loaders.torchscript_archive import TorchScriptArchive
from modelaudit.loaders.types import LoadedModel, LoadOptions


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
        script: the loaded archive, frozen and in eval mode.
        dtype: floating-point type of its parameters.
        load: loads the archive for another device; ``None`` if ``.to`` is enough.
    """

    def __init__(
        self,
        script: torch.jit.ScriptModule,
        dtype: torch.dtype,
        load: Callable[[torch.device], torch.jit.ScriptModule] | None = None,
    ) -> None:
        super().__init__()
        self.script = script.float() if dtype != torch.float32 else script
        self._load = load
        self._device = torch.device("cpu")
        self._file_dtype = dtype
        self._compute_dtype = torch.float32
        self._tried = dtype == torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]``; raises ``ValueError`` if there are none of that shape."""
        with torch.jit.optimized_execution(False):
            outputs = self._call(x)
        return require_matrix(outputs, len(x))

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchScriptModule:
        """Also move devices that the code names, which only loading anew can."""
        device = fn(torch.empty(0, device=self._device)).device
        if self._load is not None and device.type != self._device.type:
            self.script = self._load(device).to(self._compute_dtype)
        self._device = device
        super()._apply(fn, recurse)
        return self


def load_torchscript(path: Path, options: LoadOptions) -> LoadedModel:
    """Load a TorchScript archive; no Python code from the file runs.

    Devices that the code names (a model traced on a GPU makes its constants there) are replaced by
    the one that the model runs on.

    Args:
        path: the archive.
        options: ``num_classes`` is passed on.

    Raises:
        UnsafeModelError: its code reads or writes files, or it is a zip bomb.
        ModelFileError: damaged, made for another torch, or not a function of one tensor.
    """
    archive = TorchScriptArchive(path)
    script = _load(archive, torch.device("cpu"))
    schema = _schema(path, script)
    inputs = schema.arguments[1:]  # the first one is self
    required = [argument.name for argument in inputs if not argument.has_default_value()]
    if len(required) > 1 or not inputs:
        raise ModelFileError(
            f"{path} takes {len(required)} inputs ({', '.join(required)}); an image classifier "
            "takes one batch of images. Export a module that does."
        )
    parameters = list(script.parameters())
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    dtype = next(iter(dtypes)) if len(dtypes) == 1 else torch.float32
    first_conv = next((p for p in parameters if p.ndim == 4), None)
    channels = first_conv.shape[1] if first_conv is not None else None
    return LoadedModel(
        module=TorchScriptModule(
            script, dtype, functools.partial(_load, archive) if archive.names_devices else None
        ).eval(),
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


def _load(archive: TorchScriptArchive, device: torch.device) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # Deprecated in favour of torch.export, but the files are around and stay readable.
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
        try:
            script = torch.jit.load(archive.for_device(device), map_location=device)
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            reason = reason_of(error)
            raise ModelFileError(
                f"{archive.path} cannot be loaded as TorchScript by torch {torch.__version__}: "
                f"{reason}"
            ) from error
    script.eval()
    for parameter in script.parameters():
        parameter.requires_grad_(False)
    return script


def _schema(path: Path, script: torch.jit.ScriptModule) -> torch.FunctionSchema:
    try:
        forward: Any = script.forward
        return forward.schema
    except (AttributeError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} has no forward method; export the classifier itself."
        ) from error


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
