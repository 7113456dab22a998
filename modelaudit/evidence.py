"""The parts of a report that explain it: what was found, and what would have been found."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Literal

#: Largest width and height of a picture in a report, in pixels.
LARGEST_PICTURE = 224

PictureKind = Literal["clean", "stamped", "difference", "pattern"]

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(frozen=True)
class Target:
    """A class of the model.

    Attributes:
        index: output index.
        name: class name, or the index as text.
    """

    index: int
    name: str


@dataclass(frozen=True)
class Picture:
    """A picture of a finding, as data.

    Attributes:
        kind: ``clean`` image, the same one ``stamped`` with the pattern, their ``difference``
            (amplified), or the ``pattern`` itself.
        caption: what is to be seen, the factor of an amplification included.
        png: a PNG file of at most ``LARGEST_PICTURE`` pixels a side, in base64.

    Raises:
        ValueError: ``png`` is nothing of the kind.
    """

    kind: PictureKind
    caption: str
    png: str

    def __post_init__(self) -> None:
        if max(self.size) > LARGEST_PICTURE or min(self.size) < 1:
            raise ValueError(f"a picture of at most {LARGEST_PICTURE} pixels a side expected")

    @property
    def data(self) -> bytes:
        """The PNG file."""
        return base64.b64decode(self.png, validate=True)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file states them."""
        data = self.data
        if not data.startswith(_PNG_START) or len(data) < len(_PNG_START) + 8:
            raise ValueError("a PNG file expected")
        width, height = struct.unpack_from(">II", data, len(_PNG_START))
        return width, height


@dataclass(frozen=True)
class FlipCount:
    """How many images a pattern turns into the target class.

    Attributes:
        interval: exact 95 % confidence interval of the share (Clopper-Pearson); on images of the
            search, which made the pattern work on them, it says little.
    """

    flips: int
    images: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class FindingSource:
    """A source class of a found pattern; ``weight`` is its share in the search."""

    index: int
    name: str
    weight: float


@dataclass(frozen=True)
class FindingReport:
    """A backdoor that was found, explained.

    Attributes:
        detector: the surest of the detectors that found this target and have a pattern to show.
        target: the target class; ``None`` for an all-to-all attack.
        shift: of an all-to-all attack: class s becomes class ``(s + shift) mod K``.
        p: its Holm-adjusted calibrated p-value.
        note: why a part is missing; empty when none is.
        sources: the source classes that the pattern was found for, the heaviest first.
        embedding: how the pattern is put into an image; empty where the detector has no pattern.
        size: of the pattern, in ``unit``.
        searched: flips among the source classes' images that the search used.
        held_out: flips among clean images of the source classes that the search never saw and that
            the model classifies correctly; ``None`` where there are none.
        pictures: of one image of the heaviest source class.
    """

    detector: str
    target: Target | None
    shift: int | None
    p: float
    unit: str
    note: str
    sources: tuple[FindingSource, ...] = ()
    embedding: str = ""
    size: float | None = None
    searched: FlipCount | None = None
    held_out: FlipCount | None = None
    pictures: tuple[Picture, ...] = ()


def of_size(size: float | None, unit: str, with_unit: bool = True) -> str:
    """`` of size 2.2 (pixels)``; empty where there is no size, or what is given in its place is a
    statistic, the unit of which says that larger is more suspicious."""
    if size is None or "larger is more suspicious" in unit:
        return ""
    return f" of size {size:.3g} ({unit})" if with_unit else f" of size {size:.3g}"


@dataclass(frozen=True)
class LookedFor:
    """What a detector looked for, and how strong an attack had to be to be seen.

    Attributes:
        sees: the attacks that the detector is for, in a few words.
        level: calibrated p-value below which this detector alone would have decided the verdict,
            given the other detectors' p-values (Holm's correction at alpha).
        statistic: value that the largest detection statistic would have had to exceed, the other
            classes' being as they are; ``None`` where the detector has no fitted null, or where
            held-out images took its finding back.
        size: the pattern size that belongs to it: a class with a smaller one would have been
            refused. ``None`` where the statistic is not the reciprocal of a size.
        smallest: the smallest size that was found; ``None`` where ``size`` cannot be given.
        unit: of the sizes.
    """

    detector: str
    sees: str
    level: float
    statistic: float | None
    size: float | None
    smallest: float | None
    unit: str
