"""Tell model files apart by their content, and name a way out for those that are not read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from modelaudit.errors import ModelFileError

FileKind = Literal["onnx", "torchscript", "state-dict", "safetensors"]

ACCEPTED = (
    "ONNX (.onnx), TorchScript (.pt, .ts), safetensors (.safetensors with --arch) or a PyTorch "
    "state dict (.pth, .pt with --arch)"
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK"
_HEAD = 512


def file_kind(path: Path) -> FileKind:
    """What the non-empty file ``path`` holds.

    Raises:
        ModelFileError: something that is not read, with the way to convert it where there is one.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_ZIP):
        return _zip_kind(path)
    if head.startswith(_HDF5):
        raise _keras(path)
    if head[4:8] == b"TFL3":
        raise _tflite(path)
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{path} is a Git LFS pointer, not the model itself. Fetch it with: git lfs pull"
        )
    if _is_safetensors(head, path.stat().st_size):
        return "safetensors"
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:  # a pickle's protocol marker
        return "state-dict"
    if head[0] == 0x08 and len(head) > 2 and 3 <= head[1] < 0x80:  # ONNX ModelProto.ir_version
        return "onnx"
    return _kind_by_extension(path)


def convert_with_tf2onnx(flag: str, source: Path) -> str:
    """The sentence that tells how to convert a TensorFlow model."""
    target = source.with_suffix(".onnx").name
    return (
        "Convert it with: pip install tf2onnx && "
        f"python -m tf2onnx.convert {flag} {source} --output {target}"
    )


def _zip_kind(path: Path) -> FileKind:
    """A zip archive by the names of its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} is a damaged zip archive ({error}); is the download complete?"
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        raise _pt2(path)
    if "data.pkl" in inner:
        return "state-dict"
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        raise _keras(path)
    raise ModelFileError(f"{path} is a zip archive but holds no known model; expected {ACCEPTED}.")


def _is_safetensors(head: bytes, size: int) -> bool:
    """A little-endian header length that fits the file, then a JSON object."""
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= size - 8


def _kind_by_extension(path: Path) -> FileKind:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if suffix in (".h5", ".keras", ".hdf5"):
        raise _keras(path)
    if suffix == ".tflite":
        raise _tflite(path)
    if suffix == ".pt2":
        raise _pt2(path)
    if suffix == ".pb":
        raise ModelFileError(
            f"{path} is a TensorFlow graph, which is not read directly. For a SavedModel: "
            f"{convert_with_tf2onnx('--saved-model', path.absolute().parent)} . For a frozen "
            "graph use --graphdef with --inputs and --outputs instead of --saved-model."
        )
    raise ModelFileError(f"{path} is not a known model file by its content; expected {ACCEPTED}.")


def _keras(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is a Keras model, which is not read directly. "
        f"{convert_with_tf2onnx('--keras', path)} (or, in Keras 3: "
        'model.export("model.onnx", format="onnx"))'
    )


def _tflite(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is a TensorFlow Lite model, which is not read directly. "
        f"{convert_with_tf2onnx('--tflite', path)}"
    )


def _pt2(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is a torch.export archive (.pt2), which is not supported yet. Export the model "
        "with torch.onnx.export(model, args, 'model.onnx') or torch.jit.trace instead."
    )
