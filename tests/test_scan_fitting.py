"""How a scan fits model, images and the user's options together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from jsonschema import validate
from onnx import numpy_helper
from torch import Tensor

from modelaudit import loading, scanning
from modelaudit.errors import (
    ImagesError,
    ModelAuditError,
    ModelFileError,
    ModelMismatchError,
    UsageError,
)
from modelaudit.fitting import fit_images
from modelaudit.loaders import LoadedModel
from modelaudit.loaders.types import StatedFacts
from modelaudit.model_config import ModelConfig
from modelaudit.options import ScanOptions
from modelaudit.preflight import run_preflight
from modelaudit.preprocess import PreprocessOptions
from modelaudit.report import schema
from modelaudit.stated import Places
from modelaudit.stated_checks import Fixed
from modelaudit.suspect import Suspect, prepare
from tests.brightest import SIZE, K, brightest, write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def fitted(model: Path, images: Path, **options: Any) -> Suspect:
    given = ScanOptions(model, images, images_per_class=4, device="cpu", **options)
    return prepare(given, lambda stage, share: None)


def output_kind(suspect: Suspect) -> str:
    report = run_preflight(suspect.classifier, suspect.pool, suspect.chosen, 4)
    return next(check.message for check in report.checks if check.name == "output-kind")


@pytest.mark.parametrize(
    "given",
    [
        PreprocessOptions("half"),
        PreprocessOptions(mean=(0.5,)),
        PreprocessOptions(input_range="0-255"),
        PreprocessOptions(layout="NHWC"),
        PreprocessOptions(),
    ],
)
def test_layout_of_the_file_is_kept(given: PreprocessOptions, tmp_path: Path, images: Path) -> None:
    suspect = fitted(brightest(tmp_path / "m.onnx", "NHWC"), images, preprocessing=given)
    assert suspect.choice.preprocessing.layout == "NHWC"
    assert suspect.choice.accuracy == 1.0
    assert (len(suspect.choice.table) > 1) == (given == PreprocessOptions(layout=given.layout))


def test_layout_of_the_user_goes_before_the_files(tmp_path: Path, images: Path) -> None:
    model = brightest(tmp_path / "m.onnx", "NHWC")
    given = PreprocessOptions(layout="NCHW")
    with pytest.raises(ModelAuditError):
        fitted(model, images, preprocessing=given)


def test_numbers_and_names_must_fit_the_models_channels(tmp_path: Path, images: Path) -> None:
    grey = brightest(tmp_path / "grey.onnx", channels=1)
    three = PreprocessOptions(mean=(0.5, 0.5, 0.5))
    with pytest.raises(UsageError, match="--mean takes 1 number for a model with 1 channel, found"):
        fitted(grey, images, preprocessing=three)
    with pytest.raises(UsageError, match="'imagenet' for a model with 1 channel"):
        fitted(grey, images, preprocessing=PreprocessOptions("imagenet"))
    colour = brightest(tmp_path / "colour.onnx")
    assert fitted(colour, images, preprocessing=three).choice.preprocessing.mean == (0.5,) * 3


@pytest.mark.parametrize("state", ["all", "one class"])
def test_outputs_that_are_nan_are_not_blamed_on_the_importer(
    state: str, tmp_path: Path, images: Path
) -> None:
    model = brightest(tmp_path / "m.onnx", tail="NaN")
    if state == "one class":
        proto = onnx.load(str(model))
        value = np.array([np.nan, 0, 0, 0, 0], np.float32)
        proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(value, "nan"))
        onnx.save(proto, str(model))
    with pytest.raises(ModelFileError, match="20 of 20 clean images are NaN or infinite") as caught:
        scanning.scan(ScanOptions(model, images, images_per_class=4, device="cpu"))
    assert not isinstance(caught.value, ModelMismatchError)


def test_nan_on_one_side_only_is_a_mismatch(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loading.load_model

    def wrong(*arguments: Any) -> Any:
        loaded = load(*arguments)
        return replace(loaded, reference=lambda x: np.full((len(x), K), np.nan, np.float32))

    monkeypatch.setattr(loading, "load_model", wrong)
    with pytest.raises(ModelMismatchError):
        fitted(brightest(tmp_path / "m.onnx"), images)


def test_softmax_that_is_removed_is_said(tmp_path: Path, images: Path) -> None:
    suspect = fitted(brightest(tmp_path / "m.onnx", tail="Softmax"), images)
    assert suspect.choice.outputs == "probabilities"
    assert suspect.classifier.outputs == "logits"
    assert "ends in a softmax" in output_kind(suspect)
    assert "removed" in output_kind(suspect)
    plain = fitted(brightest(tmp_path / "m.onnx"), images)
    assert output_kind(plain) == "The outputs are logits."
    x = plain.chosen.pixels
    torch.testing.assert_close(suspect.classifier(x), plain.classifier(x))


def test_sigmoid_head_gives_the_same_logits(tmp_path: Path, images: Path) -> None:
    suspect = fitted(brightest(tmp_path / "m.onnx", tail="Sigmoid"), images)
    assert suspect.choice.outputs == "sigmoid"
    assert "sigmoid per class" in output_kind(suspect)
    plain = fitted(brightest(tmp_path / "m.onnx"), images)
    x = plain.chosen.pixels
    torch.testing.assert_close(suspect.classifier(x), plain.classifier(x), rtol=1e-3, atol=1e-3)


def test_sigmoid_is_in_the_reports_schema(tmp_path: Path, images: Path) -> None:
    model = brightest(tmp_path / "m.onnx", tail="Sigmoid")
    options = ScanOptions(
        model,
        images,
        images_per_class=4,
        preprocessing=PreprocessOptions(layout="NCHW"),
        detectors=("l-red",),
        settings={"l-red": {"tau_max": "2"}},
    )
    report = scanning.scan(options).report
    assert report.model.outputs == "sigmoid"
    assert report.model.preprocessing.chosen == "auto"
    validate(report.to_dict(), schema())


@pytest.mark.parametrize(
    ("asked", "stated", "said"),
    [
        ((8, 8), (6, 6), "whose input is 6x6 .* give 6x6"),
        ((8, 6), (6, None), "whose input is 6xany .* give 6x6"),
        ((6, 8), (None, 6), "whose input is anyx6 .* give 6x6"),
    ],
)
def test_image_size_that_contradicts_the_file(
    asked: tuple[int, int], stated: tuple[int | None, int | None], said: str
) -> None:
    own = StatedFacts("the command line", image_size=asked)
    with pytest.raises(ImagesError, match=f"image size of the command line .*{said}"):
        Places((own,), (), Fixed(size=stated)).resolve()


@pytest.mark.parametrize(
    ("asked", "stated", "expected"),
    [
        ((SIZE, 8), (SIZE, None), (SIZE, 8)),
        ((SIZE, 8), (None, None), (SIZE, 8)),
        (None, (SIZE, None), (SIZE, SIZE)),
        (None, (SIZE, SIZE), (SIZE, SIZE)),
    ],
)
def test_image_size_fills_what_the_file_leaves_open(
    asked: tuple[int, int] | None,
    stated: tuple[int | None, int | None],
    expected: tuple[int, int],
    images: Path,
) -> None:
    def module(x: Tensor) -> Tensor:
        return x.mean((1, 2))[:, :K]

    loaded = LoadedModel(module, "test", (3, *stated), "NCHW", K)  # type: ignore[arg-type]
    options = ScanOptions(Path("m"), images, image_size=asked, images_per_class=1)
    fit = fit_images(loaded, ModelConfig(), options, torch.device("cpu"))
    assert tuple(fit.pool.pixels.shape[2:]) == expected
    places = {None: "the clean images", (SIZE, 8): "the command line"}
    known = "the model file" if None not in stated else places[asked]
    assert fit.sources["image_size"] == known
