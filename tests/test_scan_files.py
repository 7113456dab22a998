"""Which files decide what a scan finds, and fingerprints over them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from modelaudit.errors import ImagesError, ModelFileError
from modelaudit.fleet.key import fingerprints
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.options import ScanOptions
from modelaudit.scan_files import (
    content_of,
    image_content,
    image_listing,
    model_files,
    write_content,
)
from tests.brightest import brightest, write_images


def names(model: Path) -> list[str]:
    return [file.relative_to(model.parent).as_posix() for file in model_files(model)]


def with_external_data(path: Path, location: str) -> Path:
    model = onnx.load(str(brightest(path)))
    (path.parent / location).parent.mkdir(exist_ok=True)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=location, size_threshold=0
    )
    return path


@pytest.mark.parametrize("location", ["m.onnx.data", "w.bin", f"sub/{'long' * 40}.bin"])
def test_external_data_of_onnx(tmp_path: Path, location: str) -> None:
    assert names(with_external_data(tmp_path / "m.onnx", location)) == ["m.onnx", location]


def test_a_model_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    folder = tmp_path / "models"
    folder.mkdir()
    for name in (b"../secret", b"/etc/passwd", b"missing", b"\0", b"."):
        entry = b"\x0a\x08location\x12" + bytes([len(name)]) + name
        (folder / "m.onnx").write_bytes(b"\x08\x08" + entry)
        assert names(folder / "m.onnx") == ["m.onnx"]


def test_what_lies_beside_a_model_and_is_read(tmp_path: Path) -> None:
    model = brightest(tmp_path / "m.onnx")
    (tmp_path / "modelaudit.toml").write_text('labels_file = "names.txt"')
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "README").write_text("no part of the model")
    assert names(model) == ["m.onnx", "modelaudit.toml", "names.txt"]


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    hub = tmp_path / "net"
    hub.mkdir()
    (hub / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    (hub / "model.safetensors").write_bytes(b"weights")
    (hub / "README.md").write_text("no part of the model")
    assert names(hub) == ["net/config.json", "net/model.safetensors"]


def test_missing_models_and_images(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no model file"):
        model_files(tmp_path / "missing.onnx")
    with pytest.raises(ImagesError, match="not a directory"):
        image_content(tmp_path / "missing")


def test_a_folder_is_the_same_elsewhere(tmp_path: Path) -> None:
    there, here = write_images(tmp_path / "there"), tmp_path / "here"
    (there / "5").mkdir()
    (there / "0" / "notes.txt").write_text("kept as a name only")
    (there / ".hidden").mkdir()
    write_content(image_content(there), here)
    assert image_content(here) == image_content(there)
    assert (here / "5").is_dir()
    assert (here / "0" / "notes.txt").read_bytes() == b""
    assert [name for name, *_ in image_listing(here)] == [name for name, *_ in image_listing(there)]
    assert image_listing(here) != image_listing(there)
    files = model_files(brightest(tmp_path / "m.onnx"))
    write_content(content_of(files, tmp_path), tmp_path / "copy")
    assert (tmp_path / "copy" / "m.onnx").read_bytes() == files[0].read_bytes()


def test_fingerprints_change_with_what_counts_and_with_nothing_else(tmp_path: Path) -> None:
    def prepared(folder: Path) -> ScanOptions:
        folder.mkdir()
        model = with_external_data(folder / "m.onnx", "w.bin")
        (folder / "names.txt").write_text("a\nb\nc\nd\ne\n")
        images = write_images(folder / "images")
        return ScanOptions(model, images, labels=folder / "names.txt")

    def key(options: ScanOptions) -> str:
        return fingerprints({"m": options}, lambda name: None)["m"]

    options, elsewhere = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    first = key(options)
    assert key(options) == first
    assert key(elsewhere) == first
    assert key(replace(options, seed=1)) != first
    folder = elsewhere.model.parent
    for file in ("m.onnx", "w.bin", "names.txt", "images/0/0.png"):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content + b"more")
        assert key(elsewhere) != first, file
        (folder / file).write_bytes(content)
    assert key(elsewhere) == first
    (folder / "images" / "0" / "0.png").rename(folder / "images" / "1" / "9.png")
    assert key(elsewhere) != first
    (folder / "w.bin").unlink()


def test_what_cannot_be_read_equals_nothing(tmp_path: Path) -> None:
    options = {"m": ScanOptions(tmp_path / "missing.onnx", tmp_path)}
    first, second = (fingerprints(options, lambda name: None) for _ in range(2))
    assert first != second


def test_the_digest_of_a_model_covers_its_external_data(tmp_path: Path) -> None:
    model = with_external_data(tmp_path / "m.onnx", "w.bin")
    first = sha256_of(model)
    lines = [f"{sha256_of(tmp_path / name)}  {name}\n" for name in ("w.bin",)]
    own = hashlib.sha256(model.read_bytes()).hexdigest()
    assert first == hashlib.sha256("".join([f"{own}  m.onnx\n", *lines]).encode()).hexdigest()
    (tmp_path / "w.bin").write_bytes(b"other weights")
    assert sha256_of(model) != first


@pytest.mark.parametrize(
    "entry",
    [
        b"\x12\x05w.bin\x0a\x08location",  # the value before the key
        b"\x0a\x88\x00location\x12\x05w.bin",  # lengths with more bytes than they need
        b"\x0a\x08location\x12\x85\x00w.bin",
    ],
)
def test_external_data_that_cannot_be_listed_is_refused(tmp_path: Path, entry: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08" + entry)
    (tmp_path / "w.bin").write_bytes(b"weights")
    with pytest.raises(ModelFileError, match="save it again with onnx"):
        sha256_of(tmp_path / "m.onnx")


def test_what_other_code_finds_is_never_taken_for_the_same(tmp_path: Path) -> None:
    model, images = brightest(tmp_path / "m.onnx"), write_images(tmp_path / "images")

    def twice(**settings: Any) -> set[str]:
        options = ScanOptions(model, images, **settings)
        return {fingerprints({"m": options}, lambda name: None)["m"] for _ in range(2)}

    assert len(twice(detectors=("mm-bd",))) == 1
    assert len(twice(detectors=("of-another-package",))) == 2
    assert len(twice(arch="package.module:factory")) == 2
