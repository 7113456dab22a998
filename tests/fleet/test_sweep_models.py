"""Which models a folder holds, each once; which images go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from modelaudit.errors import ManifestError, UsageError
from modelaudit.fleet.sweep_models import find_models
from tests.brightest import brightest


def names(source: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    """Model -> files that are not scanned for it."""
    found = find_models(source, options.pop("clean_dir", None), None, **options)
    return {one.model.name: one.others for one in found}


def script(path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    torch.jit.trace(model, torch.rand(1, 3, 2, 2)).save(str(path))


def weights(path: Path) -> None:
    safetensors.torch.save_file({"w": torch.zeros(3)}, path)


def test_every_format_is_found_and_other_files_are_not(tmp_path: Path) -> None:
    brightest(tmp_path / "a.onnx")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    script(tmp_path / "deep" / "b.pt")
    script(tmp_path / "deep" / "er" / "c.ts")
    torch.save({"w": torch.zeros(3)}, tmp_path / "d.PTH")
    weights(tmp_path / "e.safetensors")
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    (tmp_path / ".hidden").mkdir()
    for other in ("notes.txt", "a.onnx.data", ".f.onnx", ".hidden/g.onnx", "report.json"):
        (tmp_path / other).write_bytes(b"something")
    (tmp_path / "folder.onnx").mkdir()
    assert names(tmp_path) == dict.fromkeys(
        ("a.onnx", "broken.pt2", "d.PTH", "e.safetensors", "deep/b.pt", "deep/er/c.ts"), ()
    )


def test_a_model_in_several_formats_is_scanned_once_if_asked_for(tmp_path: Path) -> None:
    brightest(tmp_path / "net.onnx")
    script(tmp_path / "net.pt")
    weights(tmp_path / "net.safetensors")
    script(tmp_path / "other.ts")
    script(tmp_path / "other.pt")  # the same format: nobody says that it is the same model
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pth")
    files = ("net.onnx", "net.pt", "net.safetensors", "other.pt", "other.pth", "other.ts")
    assert names(tmp_path) == dict.fromkeys(files, ())
    assert names(tmp_path, one_format=True) == {
        "net.onnx": ("net.pt", "net.safetensors"),
        "other.pt": ("other.pth",),
        "other.ts": ("other.pth",),
    }


def test_a_hugging_face_folder_is_one_model(tmp_path: Path) -> None:
    hub = tmp_path / "org" / "net"
    hub.mkdir(parents=True)
    (hub / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for shard in shards:
        weights(hub / shard)
    index = {"weight_map": {f"w{i}": shard for i, shard in enumerate(shards)}}
    (hub / "model.safetensors.index.json").write_text(json.dumps(index))
    assert names(tmp_path) == {"org/net": ()}
    assert names(hub) == {"net": ()}
    brightest(hub / "model.onnx")
    assert names(tmp_path) == {"org/net": (), "org/net/model.onnx": ()}
    assert names(tmp_path, one_format=True) == {"org/net/model.onnx": ("net",)}


def test_an_incomplete_hugging_face_folder_hides_no_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    brightest(tmp_path / "net.onnx")
    assert names(tmp_path) == {"net.onnx": ()}


def test_a_damaged_hugging_face_folder_is_a_model_that_cannot_be_scanned(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text("{")
    (tmp_path / "net" / "pytorch_model.bin").write_bytes(b"weights")
    assert names(tmp_path) == {"net": ()}


def test_models_are_left_out_by_name(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("a.onnx", "b.onnx", "old/a.onnx"):
        brightest(tmp_path / name)
    assert set(names(tmp_path, exclude=("old/*",))) == {"a.onnx", "b.onnx"}
    assert set(names(tmp_path, exclude=("*a.onnx",))) == {"b.onnx"}
    with pytest.raises(UsageError, match="but the 3 that --exclude names"):
        names(tmp_path, exclude=("*",))


def test_without_models_there_is_nothing_to_sweep(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no models; expected files .*\.onnx"):
        names(tmp_path)
    with pytest.raises(UsageError, match="There is no"):
        names(tmp_path / "missing")


def test_images_are_the_given_ones_or_the_nearest(tmp_path: Path) -> None:
    for folder in ("images", "far/images", "far/near"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    (tmp_path / "images").mkdir()  # above the folder swept
    source = tmp_path / "models"
    for name in ("a.onnx", "far/b.onnx", "far/near/c.onnx"):
        brightest(source / name)

    def images(clean_dir: Path | None = None) -> list[Path | None]:
        return [one.model.clean_dir for one in find_models(source, clean_dir, None)]

    assert images() == [source / "images", source / "far/images", source / "far/images"]
    assert images(tmp_path) == [tmp_path] * 3
    (source / "images").rmdir()
    assert images()[0] is None


def test_a_manifest_needs_no_truth(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "far" / "images").mkdir(parents=True)
    entries: list[dict[str, Any]] = [
        {"file": "a.onnx"},
        {"name": "b", "file": "far/b.onnx", "label": "clean", "labels": "names.txt"},
        {"name": "c", "file": "far/c.onnx", "clean_dir": "own", "preprocess": "imagenet"},
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"models": entries}))
    models = [one.model for one in find_models(path, None, tmp_path / "all.txt")]
    assert [one.name for one in models] == ["a.onnx", "b", "c"]
    assert [one.clean_dir for one in models] == [
        None,
        tmp_path / "far" / "images",
        tmp_path / "own",
    ]
    assert [one.labels for one in models] == [
        tmp_path / "all.txt",
        tmp_path / "names.txt",
        tmp_path / "all.txt",
    ]
    assert models[2].preprocessing.name == "imagenet"
    for odd, words in (({}, "'name' is missing"), (3, "an object"), ({"file": 3}, "missing")):
        path.write_text(json.dumps({"models": [odd]}))
        with pytest.raises(ManifestError, match=words):
            find_models(path, None, None)
    path.write_text(json.dumps({"models": [{"file": "a.onnx"}] * 2}))
    with pytest.raises(ManifestError, match=r"unique; twice: a\.onnx"):
        find_models(path, None, None)
