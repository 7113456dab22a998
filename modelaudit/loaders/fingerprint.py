"""Which file was scanned: its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from modelaudit.errors import ModelFileError
from modelaudit.loaders.external_data import external_data
from modelaudit.loaders.huggingface.files import huggingface_files


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a model.

    Of a file that holds all weights: of its bytes. Of a Hugging Face folder, its ``config.json`` or
    a shard of its weights, and of an ONNX file with external data: of one line ``<SHA-256>  NAME``
    for each file that is read, sorted by name, each ended by a newline, which is what ``sha256sum``
    prints; so it changes with any of the weights, and not with a README or files of other tools.

    Raises:
        ModelFileError: a file cannot be read.
    """
    path = Path(path)
    folder = huggingface_files(path)
    if folder is not None and folder.weights != (path,):
        return _listed(folder.read, folder.folder)
    own = _sha256_of_file(path)
    more = external_data(path)
    return _listed((path, *more), path.parent) if more else own


def digest(content: Iterable[tuple[str, Path]]) -> str:
    """Hex SHA-256 of one line ``<SHA-256>  NAME`` for each file; it does not matter where they lie.

    Raises:
        ModelFileError: a file cannot be read.
    """
    total = hashlib.sha256()
    for name, path in content:
        total.update(f"{_sha256_of_file(path)}  {name}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _listed(files: Iterable[Path], folder: Path) -> str:
    return digest(sorted((file.relative_to(folder).as_posix(), file) for file in files))


def _sha256_of_file(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror or error}.") from error
