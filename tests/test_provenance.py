"""Labels and preprocessing from several places: which are used, and what a user learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import validate

from modelaudit import scanning
from modelaudit.errors import UsageError
from modelaudit.fitting import Fit, fit_images
from modelaudit.formats.text import render_text
from modelaudit.inspection import Inspection, inspect_model, inspection_json, inspection_text
from modelaudit.loaders import LoadedModel
from modelaudit.loaders.types import StatedFacts
from modelaudit.loading import load_with_config
from modelaudit.model_config import ModelConfig
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain
from modelaudit.preprocess import PreprocessOptions
from modelaudit.report import Report, schema
from tests.brightest import K, brightest, write_images

#: In another order than sorted.
NAMES = ("pear", "apple", "fig", "date", "kiwi")
#: A sigmoid is 1 for all columns of pixels up to 255, so that no column is the brightest.
SATURATED = '[preprocessing]\nname = "0-255"\n'


def fit(model: Path, images: Path, **options: Any) -> Fit:
    given = ScanOptions(model, images, images_per_class=4, device="cpu", **options)
    loaded, config = load_with_config(model, given.arch, given.num_classes)
    return fit_images(loaded, config, given, torch.device("cpu"))


def report_of(model: Path, images: Path, **options: Any) -> Report:
    settings = {"l-red": {"tau_max": "2"}}
    given = ScanOptions(
        model, images, images_per_class=4, detectors=("l-red",), settings=settings, **options
    )
    report = scanning.scan(given).report
    validate(report.to_dict(), schema())
    return report


def beside(folder: Path, text: str) -> None:
    (folder / "modelaudit.toml").write_text(text)


def test_metadata_name_the_folders_and_the_report_says_so(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", NAMES)
    model = brightest(
        tmp_path / "m.onnx",
        metadata={"labels": ",".join(NAMES), "Image.NominalPixelRange": "Normalized_1_1"},
    )
    report = report_of(model, images)
    assert report.model.classes == NAMES
    assert report.images.accuracy == 1.0
    assert report.model.preprocessing.name == "half"
    assert report.model.preprocessing.chosen == "ONNX metadata"
    assert len(report.model.preprocessing.tried) == 1
    assert report.model.sources == {
        "labels": "ONNX metadata",
        "mean": "ONNX metadata",
        "std": "ONNX metadata",
        "input_range": "ONNX metadata",
        "channel_order": "default",
        "layout": "the model file",
        "image_size": "the model file",
    }
    text = render_text(report)
    assert "half (from ONNX metadata)" in text
    assert "Class names    from ONNX metadata" in text


def test_the_file_beside_goes_before_metadata_and_the_command_line_before_both(
    tmp_path: Path,
) -> None:
    images = write_images(tmp_path / "images", NAMES)
    model = brightest(
        tmp_path / "m.onnx", metadata={"labels": "a,b,c,d,e", "mean": "0.1", "std": "0.1"}
    )
    beside(tmp_path, f"labels = {list(NAMES)}\n[preprocessing]\nname = 'half'")
    found = fit(model, images)
    assert found.choice.preprocessing.name == "half"
    assert found.pool.class_names == NAMES
    assert found.notes == ("modelaudit.toml overrides labels, mean and std of ONNX metadata.",)
    found = fit(model, images, preprocessing=PreprocessOptions("as-is"))
    assert found.choice.preprocessing.name == "as-is"
    assert found.sources["mean"] == "the command line"
    assert found.notes[0] == "The command line overrides mean and std of modelaudit.toml."
    assert report_of(model, images).model.preprocessing.chosen == "modelaudit.toml"


def test_a_channel_order_alone_leaves_a_search(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    model = brightest(tmp_path / "m.onnx", metadata={"Image.BitmapPixelFormat": "Bgr8"})
    report = report_of(model, images)
    used = report.model.preprocessing
    assert (used.name, used.chosen) == ("bgr", "auto")
    assert [tried.name for tried in used.tried] == ["bgr", "bgr-0-255", "caffe"]
    assert report.model.sources["channel_order"] == "ONNX metadata"
    assert report.model.sources["mean"] == "clean accuracy"


def test_labels_of_a_file_that_do_not_name_the_folders_are_not_used(tmp_path: Path) -> None:
    folders = ("a", "b", "c", "d", "e")
    images = write_images(tmp_path / "images", folders)
    model = brightest(tmp_path / "m.onnx", metadata={"labels": ",".join(NAMES)})
    found = fit(model, images)
    assert found.pool.class_names == folders
    assert found.sources["labels"] == "the class folders"
    (note,) = found.notes
    assert note.startswith("The labels of ONNX metadata are not used: The class folder 'a' is not")


def test_the_wrong_number_of_labels(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    model = brightest(tmp_path / "m.onnx", metadata={"labels": "a,b,c"})
    found = fit(model, images)
    assert found.sources["labels"] == "the class folders"
    assert found.notes == ("The labels of ONNX metadata are ignored: 3 names for 5 outputs.",)
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(UsageError, match=r"labels of the command line .* 6 names for 5 outputs"):
        fit(model, images, labels=tmp_path / "names.txt")
    beside(tmp_path, "labels_file = 'names.txt'")
    with pytest.raises(UsageError, match=r"labels of modelaudit\.toml .* 6 names for 5 outputs"):
        fit(model, images)
    beside(tmp_path, "num_classes = 6")
    with pytest.raises(UsageError, match=r"says num_classes = 6, but the model has 5 outputs"):
        fit(model, images)


def test_the_number_of_outputs_is_seen_when_the_file_does_not_state_it(tmp_path: Path) -> None:
    def module(x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2))[:, :K]

    stated = (StatedFacts("one", labels=tuple("abcdefg")), StatedFacts("two", labels=NAMES))
    loaded = LoadedModel(module, "test", (3, 6, 6), "NCHW", stated=stated)  # type: ignore[arg-type]
    options = ScanOptions(Path("m"), write_images(tmp_path / "images"), images_per_class=1)
    found = fit_images(loaded, ModelConfig(), options, torch.device("cpu"))
    assert found.pool.class_names == NAMES
    assert found.sources["labels"] == "two"
    assert found.notes == ("The labels of one are ignored: 7 names for 5 outputs.",)


def test_a_wrong_preprocessing_is_kept_and_the_better_one_is_named(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    model = brightest(tmp_path / "m.onnx", tail="Sigmoid")
    beside(tmp_path, SATURATED)
    report = report_of(model, images)
    assert report.verdict == "inconclusive"
    assert report.model.preprocessing.name == "0-255"
    assert report.images.accuracy == pytest.approx(0.2)
    (note,) = report.model.notes
    assert "modelaudit.toml states (0-255) clean accuracy is 20.0% on 20 images; with as-is" in note
    assert "it is 100.0%. What is stated was used" in note
    assert "--preprocess as-is --layout NCHW" in note
    tried = [one.name for one in report.model.preprocessing.tried]
    assert tried[0] == "0-255"
    assert len(tried) == len(set(tried)) == 8
    (tmp_path / "modelaudit.toml").unlink()
    given = fit(model, images, preprocessing=PreprocessOptions(input_range="0-255"))
    assert "that the command line states" in given.notes[-1]


def test_a_low_accuracy_without_anything_better_is_only_that(tmp_path: Path) -> None:
    folders = ("4", "3", "2", "1", "0")  # all wrong but the middle one
    images = write_images(tmp_path / "images", folders)
    model = brightest(tmp_path / "m.onnx")
    beside(tmp_path, "[preprocessing]\nname = 'half'")
    found = fit(model, images)
    assert found.choice.accuracy == pytest.approx(0.2)
    assert found.notes == ()
    beside(tmp_path, "[preprocessing]\nname = 'half'")
    found = fit(model, write_images(tmp_path / "right"))
    assert len(found.choice.table) == 1


def test_inspect_shows_where_every_value_comes_from(tmp_path: Path) -> None:
    metadata = {"names": str(dict(enumerate(NAMES))), "mean": "127.5", "note": "a\x1b[2J"}
    model = brightest(tmp_path / "m.onnx", metadata=metadata)
    beside(tmp_path, "[preprocessing]\nchannel_order = 'BGR'\nlayout = 'NHWC'")
    inspection = inspect_model(model)
    lines = dict(line.split("  ", 1) for line in inspection_text(inspection).splitlines()[:14])
    found = {key: value.strip() for key, value in lines.items()}
    assert found["classes"] == "5  [the model file]"
    assert found["labels"] == "pear, apple, fig, date, kiwi  [ONNX metadata]"
    assert found["layout"] == "NHWC  [modelaudit.toml]"
    assert found["channel order"] == "BGR  [modelaudit.toml]"
    assert found["mean"] == "0.5  [ONNX metadata]"
    assert found["input range"] == "0-255  [ONNX metadata]"
    assert "\x1b" not in inspection_text(inspection)
    assert "modelaudit.toml overrides layout of the model file." in inspection.notes


def test_an_inspection_travels_as_json(tmp_path: Path) -> None:
    model = brightest(tmp_path / "m.onnx", metadata={"names": str(dict(enumerate(NAMES)))})
    inspection = inspect_model(model)
    plain = json.loads(inspection_json(inspection))
    assert from_plain(Inspection, plain) == inspection
    assert plain["stated"]["labels"] == list(NAMES)
    assert plain["sources"]["image_size"] == "the model file"
    text = inspection_text(inspection)
    assert "preprocessing" in text
    assert "not stated; a scan finds by clean accuracy what the input needs" in text
