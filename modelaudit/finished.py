"""A finished detector's whole result as plain data, for a scan that goes on later.

Nothing here imports torch: the process that keeps it never opens the model.
:mod:`modelaudit.resume` makes it and turns it back.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from modelaudit.report import DetectorReport

#: Bytes of one value.
ITEM_SIZES: Mapping[str, int] = MappingProxyType({"float32": 4, "bool": 1})

#: The digests that folders and files of a checkpoint are called after.
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeptTensor:
    """A tensor.

    Attributes:
        data: its values, row by row, little-endian, in base64.

    Raises:
        ValueError: ``data`` has not as many bytes as ``shape`` says.
    """

    dtype: Literal["float32", "bool"]
    shape: tuple[int, ...]
    data: str

    def __post_init__(self) -> None:
        expected = math.prod(self.shape) * ITEM_SIZES[self.dtype]
        if min(self.shape, default=0) < 0 or len(self.bytes) != expected:
            raise ValueError(f"a tensor of {self.shape} has {expected} bytes")

    @property
    def bytes(self) -> bytes:
        return base64.b64decode(self.data, validate=True)


@dataclass(frozen=True)
class KeptPattern:
    """The pattern of a suspicious target (or shift), and how it is put into images.

    Attributes:
        entry: the target (or shift).
        theta: the pattern ``[*]``.
        embedding: a name in :data:`detectors.embeddings.EMBEDDINGS`.
        state: what that embedding was fitted to; see ``Embedding.state``.
    """

    entry: int
    theta: KeptTensor
    embedding: str
    state: tuple[KeptTensor, ...]


@dataclass(frozen=True)
class KeptNull:
    """The null of one target; see :class:`detectors.order_statistic.FittedNull`."""

    shape: float
    scale: float
    count: int
    quantiles: tuple[float, ...]
    strays: float
    share: float


@dataclass(frozen=True)
class FinishedDetector:
    """All that the rest of a scan needs of a detector that has finished.

    Attributes:
        key: hex SHA-256 of what the numbers depend on; see :func:`modelaudit.resume.detector_key`.
        report: its numbers; no Holm-adjusted p-value yet.
        applicable, searched: see :class:`detectors.types.DetectorResult`.

    Raises:
        ValueError: ``key`` is no such digest; it becomes a file name.
    """

    key: str
    report: DetectorReport
    applicable: bool
    searched: KeptTensor | None
    patterns: tuple[KeptPattern, ...]
    null: KeptNull | None

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.key):
            raise ValueError("a key of 64 hex digits expected")
