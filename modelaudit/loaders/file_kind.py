"""Tell model files apart by their content, and name a way out for those that are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from modelaudit.errors import ModelFileError
from modelaudit.loaders.archive import member_names
from modelaudit.loaders.foreign import foreign_content, foreign_name, keras, saved_model

FileKind = Literal["onnx", "torchscript", "state-dict", "safetensors", "pt2"]

ACCEPTED = (
    "ONNX (.onnx), TorchScript (.pt, .ts), torch.export (.pt2), a Hugging Face folder, "
    "safetensors (.safetensors with --arch) or a PyTorch state dict (.pth, .pt with --arch)"
)

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
    foreign = foreign_content(path, head)
    if foreign is not None:
        raise foreign
    if _is_safetensors(head, path.stat().st_size):
        return "safetensors"
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:  # a pickle's protocol marker
        return "state-dict"
    if head[0] == 0x08 and len(head) > 2 and 3 <= head[1] < 0x80:  # ONNX ModelProto.ir_version
        return "onnx"
    return _kind_by_extension(path)


def require_readable(path: Path) -> None:
    """That ``path`` is a file with content.

    Raises:
        ModelFileError: it is not; the message says what to do.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise saved_model(path)
        raise foreign_name(path) or ModelFileError(
            f"{path} is a directory without a config.json; expected a model file: {ACCEPTED}."
        )
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


def _zip_kind(path: Path) -> FileKind:
    """A zip archive by the names of its members."""
    names = member_names(path)
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return "pt2"
    if "data.pkl" in inner:
        return "state-dict"
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        raise keras(path)
    raise foreign_name(path) or ModelFileError(
        f"{path} is a zip archive but holds no known model; expected {ACCEPTED}."
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    """A little-endian header length that fits the file, then a JSON object."""
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= size - 8


def _kind_by_extension(path: Path) -> FileKind:
    if path.suffix.lower() == ".onnx":
        return "onnx"
    raise foreign_name(path) or ModelFileError(
        f"{path} is not a known model file by its content; expected {ACCEPTED}."
    )
