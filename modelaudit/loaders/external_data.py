"""Which other files an ONNX file reads its weights from, found without parsing it."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from modelaudit.errors import ModelFileError

# In an ONNX file, StringStringEntryProto: key (field 1) "location", value (field 2), whose length
# is a varint of one or two bytes.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])")
# What an ONNX file begins with, unless only its name says what it is.
_IR_VERSION = b"\x08"
# The key alone; its length may be written with more bytes than it needs.
_KEY = re.compile(rb"\x0a(?:\x08|\x88\x80*\x00)location")


def external_data(model: Path) -> tuple[Path, ...]:
    """The files below the model's folder that an ONNX file names, sorted; none of another file.

    Bytes of another meaning may look alike, so what is not a file below the model's folder is left
    to the loader to complain about.

    Raises:
        ModelFileError: it names them in a way that no exporter does, so that they cannot be listed.
    """
    with model.open("rb") as file:
        first = file.read(1)
        if not first or (first != _IR_VERSION and model.suffix.lower() != ".onnx"):
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = [_text_after(content, found) for found in _LOCATION.finditer(content)]
            if len(names) != sum(1 for _ in _KEY.finditer(content)):
                raise ModelFileError(
                    f"{model} names files with its weights in a way that no exporter does. Load it "
                    "with onnx.load and save it again with onnx.save."
                )
    return tuple(_files(sorted(set(names)), model.parent))


def _files(names: list[bytes], parent: Path) -> Iterator[Path]:
    folder = parent.resolve()
    for name in names:
        try:
            path = (folder / os.fsdecode(name)).resolve()
            if path.is_relative_to(folder) and path.is_file():
                yield parent / path.relative_to(folder)
        except (OSError, ValueError, RuntimeError):  # null bytes, names too long, loops of links
            continue


def _text_after(content: mmap.mmap, found: re.Match[bytes]) -> bytes:
    low, *high = found[1]
    length = (low & 0x7F) + (high[0] << 7 if high else 0)
    return content[found.end() : found.end() + length]
