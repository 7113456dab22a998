"""Clean images: labels, class folders, decoding, and the seeded choice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelaudit.errors import ImagesError
from modelaudit.images import (
    choose,
    load_pool,
    native_shape,
    read_image,
    read_labels,
    scan_folder,
)


def save(path: Path, value: int | tuple[int, ...] = 0, mode: str = "RGB", size=(4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def make_folders(root: Path, names: list[str], images: int = 2) -> Path:
    for name in names:
        for i in range(images):
            save(root / name / f"{i}.png", (i, 0, 0))
    return root


# Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nfish\n\n",
        "\ufeffcat\r\ndog\r\nfish",
        '["cat", "dog", "fish"]',
        '{"1": "dog", "0": "cat", "2": "fish"}',
        '{"id2label": {"0": "cat", "1": "dog", "2": "fish"}, "model_type": "vit"}',
    ],
)
def test_labels_in_every_form(tmp_path, text):
    file = tmp_path / "labels"
    file.write_bytes(text.encode())
    assert read_labels(file) == ("cat", "dog", "fish")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("cat\n\ndog\n", "no name for output 1"),
        ("[", "not: "),
        ("[1, 2]", "not a list of names"),
        ('{"0": "cat", "2": "dog"}', "every output 0 .. 1"),
        ('{"0": "cat", "00": "dog"}', "exactly once"),
        ('{"cat": 0}', "'cat'"),
        ('{"id2label": 3}', "not a list of names"),
    ],
)
def test_bad_labels_are_explained(tmp_path, text, said):
    file = tmp_path / "labels"
    file.write_text(text)
    with pytest.raises(ImagesError, match=said):
        read_labels(file)


def test_unreadable_labels(tmp_path):
    with pytest.raises(ImagesError, match="Cannot read the labels file"):
        read_labels(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImagesError, match="Cannot read the labels file"):
        read_labels(tmp_path / "binary")


# Class folders --------------------------------------------------------------------------------


def test_numbers(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["03", "10", "0"]))
    assert folder.mapping == "numbers"
    assert [(c.index, c.folder, c.name) for c in folder.classes] == [
        (0, "0", "0"),
        (3, "03", "3"),
        (10, "10", "10"),
    ]


def test_a_subset_of_labels(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["fish", "cat"]), ("cat", "dog", "fish"))
    assert folder.mapping == "labels"
    assert [(c.index, c.name) for c in folder.classes] == [(0, "cat"), (2, "fish")]
    assert folder.class_names == ("cat", "dog", "fish")


def test_numbers_take_their_names_from_labels(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["1"]), ("cat", "dog"))
    assert folder.mapping == "numbers"
    assert folder.classes[0].name == "dog"


def test_labels_that_are_numbers_win_over_indices(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["1", "2"]), ("2", "1"))
    assert folder.mapping == "labels"
    assert [(c.index, c.folder) for c in folder.classes] == [(0, "2"), (1, "1")]


def test_sorted_names(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["dog", "cat"]))
    assert folder.mapping == "sorted names"
    assert folder.class_names == ("cat", "dog")


def test_suffixes_hidden_entries_links_and_other_files(tmp_path):
    root = tmp_path / "images"
    for name in ("b.PNG", "a.jpg", "c.Jpeg", "d.bmp", "e.ppm", "f.webp", ".hidden.png"):
        save(root / "0" / name)
    (root / "0" / "notes.txt").write_text("no image")
    (root / "0" / "thumbs.png").mkdir()
    (root / ".git").mkdir()
    save(tmp_path / "elsewhere" / "x.png")
    (root / "1").symlink_to(tmp_path / "elsewhere")
    save(root / "loose.png")
    folder = scan_folder(root)
    names = [[file.name for file in c.files] for c in folder.classes]
    assert names == [["a.jpg", "b.PNG", "c.Jpeg", "d.bmp", "e.ppm", "f.webp"], ["x.png"]]
    assert len(folder.warnings) == 2
    assert "1 images lie in" in folder.warnings[0]
    assert "1 files in" in folder.warnings[1]


@pytest.mark.parametrize(
    ("folders", "labels", "said"),
    [
        (["0", "cat"], None, "mix numbers"),
        (["3", "03"], None, "two folders for class 3: '03' and '3'"),
        (["cat", "dgo"], ("cat", "dog"), "'dgo' is not among the 2 labels \\(close: dog\\)"),
        (["0", "cat"], ("cat", "dog"), "'0' is not among"),
        (["2"], ("cat", "dog"), "only the outputs 0 .. 1"),
        (["crane"], ("crane", "crane"), "several outputs"),
        ([], None, "no class folders"),
    ],
)
def test_folders_that_cannot_be_mapped(tmp_path, folders, labels, said):
    make_folders(tmp_path, folders)
    with pytest.raises(ImagesError, match=said):
        scan_folder(tmp_path, labels)


def test_not_a_directory_of_class_folders(tmp_path):
    with pytest.raises(ImagesError, match="does not exist"):
        scan_folder(tmp_path / "none")
    with pytest.raises(ImagesError, match="it is a file"):
        scan_folder(save(tmp_path / "a.png"))
    with pytest.raises(ImagesError, match="1 images without class folders"):
        scan_folder(tmp_path)
    (tmp_path / "0").mkdir()
    with pytest.raises(ImagesError, match="holds no images"):
        scan_folder(tmp_path)


# Decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "value", "channels", "expected"),
    [
        ("L", 100, 1, [100]),
        ("L", 100, 3, [100, 100, 100]),
        ("1", 1, 1, [255]),
        ("RGB", (10, 20, 30), 3, [10, 20, 30]),
        ("RGB", (255, 0, 0), 1, [76]),  # ITU-R 601 luma
        ("RGB", (10, 20, 30), 4, [10, 20, 30, 255]),
        ("RGBA", (200, 100, 50, 0), 3, [0, 0, 0]),
        ("RGBA", (200, 100, 50, 255), 3, [200, 100, 50]),
        ("RGBA", (200, 100, 50, 7), 4, [200, 100, 50, 7]),
        ("LA", (200, 0), 1, [0]),
        ("I;16", 257 * 90, 1, [90]),
        ("I;16", 257 * 90, 3, [90, 90, 90]),
    ],
)
def test_modes(tmp_path, mode, value, channels, expected):
    pixels = read_image(save(tmp_path / "a.png", value, mode), channels, (4, 4))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (channels, 4, 4)
    assert pixels[:, 1, 2].tolist() == expected


def test_half_transparent_pixels_are_put_on_black(tmp_path):
    pixels = read_image(save(tmp_path / "a.png", (200, 100, 50, 128), "RGBA"), 3, (4, 4))
    assert pixels[:, 0, 0].tolist() == pytest.approx([100, 50, 25], abs=1)


def test_palette_cmyk_and_16_bit_ppm(tmp_path):
    palette = Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4)
    palette.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png", 3, (4, 4))[:, 0, 0].tolist() == [10, 20, 30]
    palette.save(tmp_path / "t.png", transparency=palette.getpixel((0, 0)))
    assert read_image(tmp_path / "t.png", 3, (4, 4))[:, 0, 0].tolist() == [0, 0, 0]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red = read_image(tmp_path / "c.jpg", 3, (8, 8))[:, 0, 0].tolist()
    assert red == pytest.approx([255, 0, 0], abs=6)
    (tmp_path / "wide.ppm").write_bytes(b"P5 2 1 65535\n" + bytes([90, 90, 255, 255]))
    assert read_image(tmp_path / "wide.ppm", 1, (1, 2)).flatten().tolist() == [90, 255]


def test_channel_order_rows_and_columns(tmp_path):
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 3, (2, 3))
    assert torch.equal(pixels, torch.from_numpy(array).permute(2, 0, 1))


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "0").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "0" / "a.jpg", exif=exif)
    assert load_pool(scan_folder(tmp_path), 3, (4, 8), 1, 0).resized == 0


def test_resizing(tmp_path):
    array = np.zeros((4, 4), dtype=np.uint8)
    array[:, 2:] = 200
    Image.fromarray(array).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png", 1, (2, 2))
    assert small[0, 0, 0] < 40
    assert small[0, 0, 1] > 160


def test_unreadable_files(tmp_path, monkeypatch):
    with pytest.raises(ImagesError, match="Cannot read the image"):
        read_image(tmp_path / "none.png", 3, (4, 4))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImagesError, match=r"text\.png is not a readable image"):
        read_image(tmp_path / "text.png", 3, (4, 4))
    whole = save(tmp_path / "a.png", size=(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImagesError, match=r"cut\.png is not a readable image"):
        read_image(tmp_path / "cut.png", 3, (4, 4))
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    with pytest.raises(ImagesError, match="not a readable image"):
        read_image(tmp_path / "script.png", 3, (4, 4))
    with pytest.raises(ImagesError, match="model takes 2"):
        read_image(tmp_path / "a.png", 2, (4, 4))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(ImagesError, match="refused"):  # a warning of Pillow's
        read_image(tmp_path / "a.png", 3, (4, 4))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImagesError, match="refused"):  # an error of Pillow's
        read_image(tmp_path / "a.png", 3, (4, 4))


# Pool and choice ------------------------------------------------------------------------------


def test_pool(tmp_path):
    for value in (0, 255):
        save(tmp_path / "2" / f"{value}.png", value, "L")
    save(tmp_path / "0" / "large.png", 51, "L", (8, 8))
    pool = load_pool(scan_folder(tmp_path), 1, (4, 4), per_class=2, seed=0)
    assert pool.pixels.shape == (3, 1, 4, 4)
    assert pool.pixels.dtype == torch.float32
    assert pool.labels.tolist() == [0, 2, 2]
    assert pool.labels.dtype == torch.int64
    assert pool.counts() == {0: 1, 2: 2}
    assert pool.resized == 1
    assert pool.pixels[0].unique().item() == pytest.approx(0.2)
    assert sorted(pool.pixels[1:, 0, 0, 0].tolist()) == [0.0, 1.0]
    lines = [
        f"{label}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        for label, file in zip([0, 2, 2], pool.files, strict=True)
    ]
    assert pool.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_pool_is_seeded_and_independent_of_other_classes(tmp_path):
    make_folders(tmp_path / "one", ["1"], images=12)
    make_folders(tmp_path / "two", ["0", "1"], images=12)
    first = load_pool(scan_folder(tmp_path / "one"), 3, (4, 4), 1, seed=7)
    second = load_pool(scan_folder(tmp_path / "two"), 3, (4, 4), 1, seed=7)
    other = load_pool(scan_folder(tmp_path / "two"), 3, (4, 4), 1, seed=8)
    names = [file.name for file in first.files]
    assert len(names) == 4
    assert names == [file.name for file in second.files[4:]]
    assert names != [file.name for file in other.files[4:]]
    assert [f.name for f in second.files[:4]] != [f.name for f in second.files[4:]]
    assert first.sha256 == load_pool(scan_folder(tmp_path / "one"), 3, (4, 4), 1, 7).sha256


def test_unreadable_images_are_skipped_by_name(tmp_path):
    make_folders(tmp_path, ["0"], images=2)
    (tmp_path / "0" / "broken.png").write_bytes(b"")
    (tmp_path / "0" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    pool = load_pool(scan_folder(tmp_path), 3, (4, 4), 4, seed=0)
    assert len(pool) == 2
    assert len(pool.warnings) == 2
    assert {name for name in ("broken.png", "gone.png") for w in pool.warnings if name in w} == {
        "broken.png",
        "gone.png",
    }
    for file in ("0.png", "1.png"):
        (tmp_path / "0" / file).unlink()
    with pytest.raises(ImagesError, match="No image of class '0'"):
        load_pool(scan_folder(tmp_path), 3, (4, 4), 4, seed=0)


def test_pool_needs_at_least_one_image_per_class(tmp_path):
    folder = scan_folder(make_folders(tmp_path, ["0"]))
    with pytest.raises(ImagesError, match="At least 1"):
        load_pool(folder, 3, (4, 4), 0, seed=0)


def test_choice_prefers_correct_images(tmp_path):
    pool = load_pool(scan_folder(make_folders(tmp_path, ["0", "1", "2"], 8)), 3, (4, 4), 2, 0)
    predictions = pool.labels.clone()
    predictions[:5] = 1  # class 0: 3 of 8 correct
    predictions[8:15] = 2  # class 1: 1 of 8 correct
    predictions[16:] = 0  # class 2: none
    chosen = choose(pool, predictions, 2, seed=0)
    assert chosen.counts() == {0: 2, 1: 1, 2: 2}
    assert chosen.files[2] == pool.files[15]
    assert set(chosen.files[:2]) <= set(pool.files[5:8])
    assert chosen.warnings == pool.warnings  # preflight warns of class 2
    assert torch.equal(chosen.pixels[2], pool.pixels[15])


def test_native_shape(tmp_path):
    save(tmp_path / "0" / "b.png", 0, "L", (6, 5))
    (tmp_path / "0" / "a.png").write_text("unreadable")
    assert native_shape(scan_folder(tmp_path)) == (1, 5, 6)
    save(tmp_path / "0" / "a.png", size=(7, 8))
    assert native_shape(scan_folder(tmp_path)) == (3, 8, 7)
    for name in "ab":
        (tmp_path / "0" / f"{name}.png").write_text(json.dumps(name))
    with pytest.raises(ImagesError, match="No image"):
        native_shape(scan_folder(tmp_path))
