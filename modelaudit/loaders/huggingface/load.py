"""A Hugging Face folder as a :class:`LoadedModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.huggingface.facts import timm_facts, transformers_facts
from modelaudit.loaders.huggingface.files import CONFIG, HuggingFaceFiles
from modelaudit.loaders.huggingface.timm_model import build_timm
from modelaudit.loaders.huggingface.transformers_model import Built, build_transformers
from modelaudit.loaders.types import LoadedModel, LoadOptions, StatedFacts
from modelaudit.loaders.weights import read_safetensors, read_state_dict

_LISTED = 3


def load_huggingface(files: HuggingFaceFiles, options: LoadOptions) -> LoadedModel:
    """Load a folder; its own code never runs, and nothing is fetched.

    Args:
        files: of the folder.
        options: not needed, the folder says what it holds.

    Raises:
        UnsafeModelError: it asks for code that it brings along, or for weights from elsewhere.
        ModelFileError: incomplete, damaged, unknown, or the extra ``[hf]`` is not installed.
    """
    _refuse_code(files)
    is_timm = "architecture" in files.config
    weights = _read_weights(files)
    built = (build_timm if is_timm else build_transformers)(files, weights)
    module = built.network.float().eval().requires_grad_(False)
    num_classes = _num_classes(files, is_timm)
    facts = (timm_facts if is_timm else transformers_facts)(files, num_classes or 0)
    return LoadedModel(
        module=module,
        format="huggingface",
        input_shape=_input_shape(files, is_timm, module.state_dict(), facts),
        layout="NCHW",
        num_classes=num_classes,
        stated=facts,
        notes=_notes(built),
        details={
            "library": "timm" if is_timm else "transformers",
            "arch": built.name,
            "weights": ", ".join(path.name for path in files.weights[:_LISTED]),
            "parameters": f"{sum(p.numel() for p in module.parameters()):,}",
            "tensors": str(len(weights)),
        },
    )


def _refuse_code(files: HuggingFaceFiles) -> None:
    for part in _objects(files.config):
        for key in ("auto_map", "custom_pipelines"):
            if part.get(key):
                raise UnsafeModelError(
                    f"{files.folder} is refused: its {CONFIG} asks to run code of its own "
                    f"({key}). Export the model to ONNX where you trust it."
                )
        if part.get("use_pretrained_backbone"):
            raise UnsafeModelError(
                f"{files.folder} is refused: its {CONFIG} takes a part of the model from "
                "elsewhere (use_pretrained_backbone). Save the whole model into one folder."
            )
        if part.get("quantization_config"):
            raise ModelFileError(
                f"{files.folder} holds quantised weights (quantization_config), which are not "
                "supported. Give the model before quantisation."
            )


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """All JSON objects in ``value``, itself included."""
    if isinstance(value, Mapping):
        return [value, *(part for inner in value.values() for part in _objects(inner))]
    return [part for inner in value for part in _objects(inner)] if isinstance(value, list) else []


def _read_weights(files: HuggingFaceFiles) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in files.weights:
        read = read_safetensors if path.suffix == ".safetensors" else read_state_dict
        weights.update(read(path))
    return weights


def _num_classes(files: HuggingFaceFiles, is_timm: bool) -> int | None:
    if is_timm:
        stated = files.config.get("num_classes")
    else:
        stated = len(files.config.get("id2label") or ()) or files.config.get("num_labels")
    return stated if type(stated) is int and stated > 0 else None


def _input_shape(
    files: HuggingFaceFiles,
    is_timm: bool,
    tensors: Mapping[str, Tensor],
    stated: tuple[StatedFacts, ...],
) -> tuple[int | None, int | None, int | None]:
    """Channels, and the image's size as the files state it.

    A timm model takes images of any size unless it says otherwise.
    """
    first = next((t for t in tensors.values() if t.ndim == 4), None)
    channels = first.shape[1] if first is not None else None
    cfg = files.config.get("pretrained_cfg") or {}
    open_size = is_timm and not cfg.get("fixed_input_size")
    sizes = (facts.image_size for facts in stated if not open_size)
    height, width = next((size for size in sizes if size), (None, None))
    return channels, height, width


def _notes(built: Built) -> tuple[str, ...]:
    if not built.unused:
        return ()
    more = ", ..." if len(built.unused) > _LISTED else ""
    return (
        f"{len(built.unused)} tensors in the file are not part of {built.name} "
        f"({', '.join(built.unused[:_LISTED])}{more}); they are not used.",
    )
