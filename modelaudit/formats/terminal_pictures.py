"""Small pictures in a colour terminal: two pixels per character, as upper half blocks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from modelaudit.evidence import Picture

_LARGEST = 32
_GAP = 3
#: Terminals with fewer colours would show something else than the picture.
_ENOUGH_COLOURS = ("256", "truecolor")

Pixel = tuple[int, int, int]


@dataclass(frozen=True)
class PictureStrip:
    """Pictures side by side; nothing where the console has no colours."""

    pictures: tuple[Picture, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.no_color or console.color_system not in _ENOUGH_COLOURS:
            return
        count = len(self.pictures)
        width = min(_LARGEST, (options.max_width - _GAP * (count - 1)) // max(count, 1))
        if width < 8:
            return
        images = [_pixels(picture, width) for picture in self.pictures]
        if not all(images):
            return
        for top in range(0, max(map(len, images)), 2):
            for image in images:
                yield from _cells(image[top : top + 2], len(image[0]))
                yield Segment(" " * _GAP)
            yield Segment.line()
        yield Text(" | ".join(picture.caption for picture in self.pictures), style="dim")


def _cells(rows: list[list[Pixel]], width: int) -> Iterator[Segment]:
    """One line of characters for up to two rows of pixels."""
    upper = rows[0] if rows else []
    lower = rows[1] if len(rows) > 1 else []
    for column in range(width):
        above = Color.from_rgb(*upper[column]) if upper else None
        below = Color.from_rgb(*lower[column]) if lower else None
        yield Segment("▀" if above else " ", Style(color=above, bgcolor=below))


def _pixels(picture: Picture, largest: int) -> list[list[Pixel]]:
    """Rows of RGB pixels of the picture, shrunk to at most ``largest`` a side.

    None where it is damaged: pictures come from the process that ran the suspect model.
    """
    from PIL import Image  # only a terminal that shows pictures needs it

    try:
        with Image.open(io.BytesIO(picture.data), formats=("PNG",)) as image:
            colour = image.convert("RGB")
    except Exception:  # Pillow raises what its parsers raise
        return []
    colour.thumbnail((largest, largest))
    data = colour.tobytes()
    width, height = colour.size
    pixels = [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]
    return [pixels[row * width : (row + 1) * width] for row in range(height)]
