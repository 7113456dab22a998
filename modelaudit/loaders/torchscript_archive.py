"""The records of a TorchScript archive, checked before torch loads them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import IO

import torch

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.archive import member_names
from modelaudit.loaders.torchscript_code import refuse_unsafe_code

_DEVICE = re.compile(rb"""torch\.device\(["']\w+(?::\d+)?["']\)""")
_CODE, _CHECKED = ".py", (".py", ".pkl")
# How torch before 1.4 laid an archive out; its reader would look for code elsewhere.
_ANCIENT = "model.json"


class TorchScriptArchive:
    """An archive whose code was found harmless.

    It is read with torch's own reader, so that what is checked is what torch will load. That finds
    records whatever the case of their names: ``x.PY`` is code like ``x.py``.

    Attributes:
        names_devices: whether the code names devices, as that of a model traced on a GPU does.

    Raises:
        UnsafeModelError: its code reads or writes files, names are ambiguous, or it is a zip bomb.
        ModelFileError: damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        member_names(path)
        try:
            self._reader = torch._C.PyTorchFileReader(str(path))
            self._names: list[str] = self._reader.get_all_records()
            lower = {name.lower(): name for name in self._names}
            checked = {low: self._read(n) for low, n in lower.items() if low.endswith(_CHECKED)}
        except RuntimeError as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise ModelFileError(f"{path} is a damaged TorchScript archive: {reason}") from error
        if len(lower) < len(self._names):
            raise UnsafeModelError(
                f"{path} is refused: some of its records have the same name, so that it is not "
                "certain which of them is run. Save the model again with torch."
            )
        if _ANCIENT in lower:
            raise ModelFileError(
                f"{path} was saved by a torch older than 1.4. Save it again with a newer one."
            )
        refuse_unsafe_code(path, checked)
        self._code = {low: text for low, text in checked.items() if low.endswith(_CODE)}
        self.names_devices = any(_DEVICE.search(text) for text in self._code.values())

    def for_device(self, device: torch.device) -> str | IO[bytes]:
        """What ``torch.jit.load`` takes: the file, or a copy whose code names ``device`` only."""
        if not self.names_devices:
            return str(self.path)
        named = f'torch.device("{device}")'.encode()
        buffer = io.BytesIO()
        writer = torch._C.PyTorchFileWriter(buffer)
        for name in self._names:
            text = self._code.get(name.lower())
            content = self._read(name) if text is None else _DEVICE.sub(named, text)
            if name not in _WRITTEN_BY_THE_WRITER:
                writer.write_record(name, content, len(content))
        writer.write_end_of_file()
        buffer.seek(0)
        return buffer

    def _read(self, name: str) -> bytes:
        content: bytes = self._reader.get_record(name)
        return content


_WRITTEN_BY_THE_WRITER = ("version", ".data/version", ".data/serialization_id", "byteorder")
