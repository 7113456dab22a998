"""Which files a scan reads: of the model, and of the clean images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelaudit.errors import ImagesError
from modelaudit.image_folder import is_image
from modelaudit.loaders.external_data import external_data
from modelaudit.loaders.file_kind import require_readable
from modelaudit.loaders.huggingface.files import huggingface_files
from modelaudit.model_config import config_files


def model_files(model: Path) -> tuple[Path, ...]:
    """Every file that decides what a scan of ``model`` finds, all in its folder.

    That is the model, or the files of a Hugging Face folder; the external data of an ONNX file; a
    ``modelaudit.toml`` beside it with its labels. Nothing is parsed but JSON and TOML.

    Raises:
        ModelAuditError: they are missing or cannot be read.
    """
    folder = huggingface_files(model)
    if folder is not None:
        own: tuple[Path, ...] = folder.read
    else:
        require_readable(model)
        own = (model, *external_data(model))
    return tuple(dict.fromkeys((*own, *config_files(model))))


def content_of(files: tuple[Path, ...], folder: Path) -> dict[str, bytes]:
    """Path below ``folder`` -> content."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def write_content(content: Mapping[str, bytes], folder: Path) -> None:
    """The inverse of :func:`content_of`; a name that ends in a slash is a folder."""
    for name, data in content.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def image_entries(directory: Path) -> tuple[Path, ...]:
    """What :func:`modelaudit.image_folder.scan_folder` looks at: class folders, and files in them.

    Raises:
        ImagesError: there is no such folder.
    """
    if not directory.is_dir():
        raise ImagesError(f"{directory} is not a directory of clean images.")
    entries = [entry for entry in sorted(directory.iterdir()) if not entry.name.startswith(".")]
    inside = [one for entry in entries if entry.is_dir() for one in sorted(entry.iterdir())]
    return (*entries, *(one for one in inside if not one.name.startswith(".")))


def image_content(directory: Path) -> dict[str, bytes]:
    """Path below ``directory`` -> content; other files than images are there, but empty."""
    content = {}
    for entry in image_entries(directory):
        name = entry.relative_to(directory).as_posix()
        if entry.is_dir():
            content[f"{name}/"] = b""
        elif entry.exists():
            content[name] = entry.read_bytes() if is_image(entry) else b""
    return content


def image_listing(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, size in bytes and time of the last change in nanoseconds of every file.

    Two machines that find the same see the same file system, or a copy of it.
    """
    files = (entry for entry in image_entries(directory) if entry.is_file())
    facts = ((one.relative_to(directory).as_posix(), one.stat()) for one in files)
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)
