"""Zip archives: PyTorch's formats and Keras's are ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

from modelaudit.errors import ModelFileError, UnsafeModelError

# Weights are stored as they are; only TorchScript's code and JSON are sometimes compressed, to
# about a tenth. What grows more than this was made to fill memory.
_LARGEST_RATIO = 8
_ALWAYS_FINE = 32 * 2**20


def member_names(path: Path) -> list[str]:
    """Names of the files in a zip archive; only the archive's table of contents is read.

    Raises:
        UnsafeModelError: unpacked, it would be far larger than the file is.
        ModelFileError: damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelFileError(
            f"{path} is a damaged zip archive ({error}); is the download complete?"
        ) from error
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > _ALWAYS_FINE + _LARGEST_RATIO * packed:
        raise UnsafeModelError(
            f"{path} is refused: its {packed:,} bytes unpack to {unpacked:,}, as in a zip bomb. "
            "Model files store their weights uncompressed; save the model again with torch."
        )
    return [member.filename for member in members]
