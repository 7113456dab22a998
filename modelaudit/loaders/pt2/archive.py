"""What lies where in a torch.export archive, of torch 2.5 and newer; nothing of it is run."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.archive import member_names
from modelaudit.loaders.pt2.arguments import scalar_type, whole_numbers

# Folders of compiled code (AOTInductor), and what such code is called.
_COMPILED_FOLDERS = ("aotinductor/", "executorch/")
_COMPILED = (".so", ".o", ".dll", ".dylib", ".pyd", ".cubin", ".ptx", ".cpp", ".py")
_OLD = "serialized_exported_program.json"


@dataclass(frozen=True)
class Archive:
    """The parts of an archive.

    Attributes:
        program: the exported program, as the JSON has it.
        weights: parameters and buffers by name.
        constants: tensors by name.
    """

    program: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]


def read_archive(path: Path) -> Archive:
    """Read the graph and its weights; sample inputs, which are a pickle, are never looked at.

    Raises:
        UnsafeModelError: it holds compiled code, or objects other than tensors.
        ModelFileError: damaged, or it holds no program or several.
    """
    names = member_names(path)
    compiled = next((name for name in names if _is_compiled(name)), None)
    if compiled is not None:
        raise UnsafeModelError(
            f"{path} is refused: it holds compiled code ({compiled}), which loading would run. "
            "Save the exported program itself: torch.export.save(program, 'model.pt2')."
        )
    with zipfile.ZipFile(path) as opened:
        if _OLD in names:
            return Archive(
                json.loads(opened.read(_OLD)),
                _unpickle(path, opened.read("serialized_state_dict.pt")),
                _unpickle(path, opened.read("serialized_constants.pt")),
            )
        root = names[0].partition("/")[0]
        model = _only_model(path, root, names)
        return Archive(
            json.loads(opened.read(f"{root}/models/{model}.json")),
            _tensors(path, opened, f"{root}/data/weights/", f"{model}_weights_config.json", model),
            _tensors(
                path, opened, f"{root}/data/constants/", f"{model}_constants_config.json", model
            ),
        )


def _is_compiled(name: str) -> bool:
    inside = name.partition("/")[2].removeprefix("data/")
    extra = inside.startswith("extra/")
    return inside.startswith(_COMPILED_FOLDERS) or (name.endswith(_COMPILED) and not extra)


def _only_model(path: Path, root: str, names: list[str]) -> str:
    prefix = f"{root}/models/"
    models = [
        name.removeprefix(prefix).removesuffix(".json")
        for name in names
        if name.startswith(prefix) and name.endswith(".json")
    ]
    if "model" in models:
        return "model"
    if len(models) != 1:
        raise ModelFileError(
            f"{path} holds {len(models)} exported programs ({', '.join(models) or 'none'}); "
            "expected one. Save it with torch.export.save(program, 'model.pt2')."
        )
    return models[0]


def _tensors(
    path: Path, opened: zipfile.ZipFile, folder: str, config: str, model: str
) -> dict[str, Tensor]:
    """Tensors of one folder, by the names that its table of contents gives them."""
    names = set(opened.namelist())
    if f"{folder}{model}.pt" in names:  # torch 2.7
        return _unpickle(path, opened.read(f"{folder}{model}.pt"))
    entries = json.loads(opened.read(folder + config))["config"]
    files: dict[str, bytearray] = {}
    tensors = {}
    for name, entry in entries.items():
        file = entry["path_name"]
        if not file.startswith(("weight_", "tensor_")):
            raise UnsafeModelError(
                f"{path} is refused: its constant {name!r} is an object ({file}), not a tensor, "
                "and reading it would run code from the file."
            )
        if file not in files:
            files[file] = bytearray(opened.read(folder + file))
        if entry["use_pickle"]:
            tensors[name] = _unpickle(path, bytes(files[file]), name)[name]
        else:
            tensors[name] = _strided(files[file], entry["tensor_meta"])
    return tensors


def _strided(data: bytearray, meta: Mapping[str, Any]) -> Tensor:
    """A tensor from its bytes; torch refuses extents that reach beyond them."""
    dtype = scalar_type(meta["dtype"])
    sizes = whole_numbers(meta["sizes"])
    if not data:
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(data, dtype=dtype)
    (offset,) = whole_numbers([meta["storage_offset"]])
    return flat.as_strided(sizes, whole_numbers(meta["strides"]), offset)


def _unpickle(path: Path, data: bytes, single: str | None = None) -> dict[str, Tensor]:
    """Tensors by name, through torch's weights-only reader; ``single`` names a lone one."""
    if not data:
        return {}
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # torch.load raises many types on damaged files, and UnpicklingError on what it refuses.
    except Exception as error:
        raise UnsafeModelError(
            f"{path} is refused: its pickled weights are damaged or hold more than tensors, and "
            "reading that could run code from the file. Save the program again with a newer "
            "torch: torch.export.save(program, 'model.pt2')."
        ) from error
    content = {single: content} if single is not None else content
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UnsafeModelError(f"{path} is refused: its pickled weights are not only tensors.")
    return {str(name): value for name, value in content.items()}
