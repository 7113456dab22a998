"""A torch.export archive as a :class:`LoadedModel`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.batch import any_batch
from modelaudit.loaders.pt2.archive import Archive, read_archive
from modelaudit.loaders.pt2.graph import ExportedModule
from modelaudit.loaders.pt2.program import Program, read_program
from modelaudit.loaders.types import Layout, LoadedModel, LoadOptions

_CHANNELS = (1, 2, 3, 4)


def load_pt2(path: Path, options: LoadOptions) -> LoadedModel:
    """Load what ``torch.export.save`` wrote; no code from the file runs.

    Args:
        path: the archive.
        options: not needed, the file holds the graph.

    Raises:
        UnsafeModelError: compiled code, objects other than tensors, or operators that are not
            known to be harmless.
        ModelFileError: not an image classifier with one input.
        Exception: anything else that a damaged file leads to.
    """
    try:
        archive = read_archive(path)
        program = read_program(archive)
        graph = ExportedModule(program.graph, program.weights, program.image.name)
        graph.eval().requires_grad_(False)
        batch, *shape = program.image.sizes
        module, num_classes, slow = any_batch(graph, _probe_shape(program), batch)
    except ModelFileError as error:
        if str(error).startswith(str(path)):
            raise
        verdict = "is refused" if isinstance(error, UnsafeModelError) else "cannot be used"
        raise type(error)(f"{path} {verdict}: {error}") from error
    return LoadedModel(
        module=module.eval(),
        format="pt2",
        input_shape=tuple(shape),
        layout=_layout(tuple(shape)),
        num_classes=num_classes,
        notes=_notes(program, slow),
        details=_details(archive, program),
    )


def _probe_shape(program: Program) -> tuple[int, ...]:
    """Of one image, with the extents that it had when the model was exported."""
    if len(program.image.sizes) != 4:
        raise ModelFileError(
            f"its input has {len(program.image.sizes)} dimensions; images have 4: batch, channels, "
            "height and width. Export the classifier with image batches."
        )
    return tuple(size or 224 for size in program.image.examples[1:])


def _layout(shape: tuple[int | None, ...]) -> Layout | None:
    first, _, last = shape
    if (first in _CHANNELS) == (last in _CHANNELS):
        return None
    return "NCHW" if first in _CHANNELS else "NHWC"


def _notes(program: Program, slow: str | None) -> tuple[str, ...]:
    notes = [slow] if slow else []
    if program.outputs > 1:
        notes.append(f"The model has {program.outputs} outputs; its first of shape [B, K] is used.")
    if program.dtype != torch.float32:
        name = str(program.dtype).removeprefix("torch.")
        notes.append(f"The weights are {name}; they are computed with in float32.")
    if program.in_training_mode:
        notes.append("The model was exported in training mode; it runs in eval mode.")
    return tuple(notes)


def _details(archive: Archive, program: Program) -> Mapping[str, str]:
    version: Mapping[str, Any] = archive.program.get("schema_version") or {}
    tensors = [v for v in archive.weights.values() if isinstance(v, Tensor)]
    names = (f"{name}×{count}" for name, count in program.operators.most_common())
    return {
        "producer": f"torch {str(archive.program.get('torch_version', 'unknown'))[:40]}",
        "schema": f"{version.get('major')}.{version.get('minor')}",
        "operators": ", ".join(names),
        "parameters": f"{sum(v.numel() for v in tensors if v.is_floating_point()):,}",
        "tensors": str(len(tensors)),
        "dtype": str(program.dtype).removeprefix("torch."),
    }
