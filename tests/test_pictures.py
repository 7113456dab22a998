"""Pictures as data: small PNG files, and nothing else where one is expected."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from detectors.finding import Finding
from modelaudit.evidence import LARGEST_PICTURE, Picture
from modelaudit.findings import SMALLER_PICTURE
from modelaudit.formats.html import render_html
from modelaudit.formats.picture_files import write_pictures
from modelaudit.formats.terminal_pictures import PictureStrip
from modelaudit.formats.text import literal_console
from modelaudit.pictures import amplified, pictures_of, png_of
from modelaudit.plain import from_plain, to_plain
from tests.formats.reports import backdoored


def picture(data: bytes) -> Picture:
    return Picture("clean", "an image", base64.b64encode(data).decode())


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [
        ((1, 5, 7), "L", (7, 5)),
        ((3, 28, 28), "RGB", (28, 28)),
        ((4, 6, 6), "RGB", (6, 6)),
        ((3, 448, 224), "RGB", (112, 224)),
    ],
)
def test_png_of_pixels(shape: tuple[int, int, int], mode: str, size: tuple[int, int]) -> None:
    data = png_of(torch.rand(shape))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", mode, size)
    assert picture(data).size == size


def test_png_keeps_the_pixels() -> None:
    pixels = torch.arange(12).view(3, 2, 2) / 255
    with Image.open(io.BytesIO(png_of(pixels))) as image:
        assert image.getpixel((1, 0)) == (1, 5, 9)


def test_difference_is_amplified_to_the_full_range() -> None:
    shown, factor = amplified(torch.tensor([[[0.0, 0.1], [-0.05, 0.0]]]))
    assert factor == pytest.approx(5)
    assert shown.flatten().tolist() == pytest.approx([0.5, 1.0, 0.25, 0.5])
    assert amplified(torch.zeros(1, 2, 2))[1] == 1
    assert amplified(torch.full((1, 2, 2), 0.9))[1] == 1


def test_a_report_with_large_pictures_is_small() -> None:
    """Photographs compress better than this noise, which makes the difference and the pattern."""
    smooth = torch.rand(1, 3, 8, 8)
    image = torch.nn.functional.interpolate(smooth, (224, 224), mode="bicubic")[0].clamp(0, 1)
    theta = 0.01 * torch.randn(3, 224, 224)
    finding = Finding("l-red", 3, (6,), 1.0, "L2", theta, lambda x, v: (x + v).clamp(0, 1))
    report = backdoored()
    two = tuple(
        replace(report.findings[0], pictures=pictures_of(finding, image, "a", "b", largest))
        for largest in (LARGEST_PICTURE, SMALLER_PICTURE)
    )
    assert len(render_html(replace(report, findings=two)).encode()) < 10**6


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", png_of(torch.rand(1, 4, 4))[:18], b"<svg onload=alert(1)>"],
)
def test_what_is_no_png_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="PNG"):
        picture(data)


def test_a_large_png_and_odd_text_are_refused() -> None:
    file = io.BytesIO()
    Image.new("L", (225, 10)).save(file, "PNG")
    with pytest.raises(ValueError, match="224"):
        picture(file.getvalue())
    with pytest.raises(ValueError, match="base64"):
        Picture("clean", "", '"><script>')


@pytest.mark.parametrize(
    "change", [{"png": "PHN2Zz4="}, {"kind": "../../x"}, {"caption": None}, {"size": [1, 1]}]
)
def test_a_worker_cannot_send_something_else(change: dict[str, object]) -> None:
    plain = to_plain(picture(png_of(torch.rand(1, 4, 4))))
    assert from_plain(Picture, plain).size == (4, 4)
    with pytest.raises(ValueError, match=r"Picture|PNG"):
        from_plain(Picture, plain | change)


def shown(*, width: int = 100, **options: object) -> str:
    console = literal_console(file=io.StringIO(), width=width, **options)
    strip = PictureStrip((picture(png_of(torch.rand(3, 8, 8))),) * 3)
    console.print(strip)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_only_a_colour_terminal_shows_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    colour = {"force_terminal": True, "color_system": "truecolor"}
    lines = shown(**colour).splitlines()
    assert len(lines) == 5
    assert lines[0].count("▀") == 24
    assert "an image | an image" in lines[-1]
    assert shown() == ""
    assert shown(**colour, width=20) == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(**colour) == ""


def test_a_damaged_png_shows_nothing() -> None:
    data = bytearray(png_of(torch.rand(3, 8, 8)))
    data[40:] = b""
    console = literal_console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(PictureStrip((picture(bytes(data)),)))
    assert "▀" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_pictures_are_written(tmp_path: Path) -> None:
    assert write_pictures(backdoored(), tmp_path / "new") == []
    names = sorted(file.name for file in (tmp_path / "new").iterdir())
    kinds = ("clean", "difference", "pattern", "stamped")
    assert names == [f"target-3-{kind}.png" for kind in kinds]
    (tmp_path / "file").touch()
    assert "--pictures" in write_pictures(backdoored(), tmp_path / "file")[0]
