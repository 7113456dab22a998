"""Which file was scanned: its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from modelaudit.errors import ModelFileError
from modelaudit.loaders.huggingface.files import CONFIG, huggingface_files


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a model.

    Of a file: of its bytes. Of a Hugging Face folder, or the ``config.json`` in it: of one line
    ``<SHA-256>  <name>`` for each file that is read, sorted by name, each ended by a newline, which
    is what ``sha256sum`` prints; so it does not change with a README or files of other tools.

    Raises:
        ModelFileError: a file cannot be read.
    """
    path = Path(path)
    files = huggingface_files(path) if path.is_dir() or path.name == CONFIG else None
    if files is None:
        return _sha256_of_file(path)
    read = sorted(files.read, key=lambda file: file.name)
    lines = [f"{_sha256_of_file(file)}  {file.name}\n" for file in read]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror or error}.") from error
