"""Scans of the bundled models in other wrappings: what a user's file may look like."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modelaudit import loaders, loading, scanning
from modelaudit.errors import ModelMismatchError, UsageError
from modelaudit.loaders import load_model
from modelaudit.report import Report, schema
from modelaudit.scanning import ScanOptions
from tests.conftest import BUNDLED

IMAGES = BUNDLED / "images"
#: Two steps find no pattern, but everything around the search runs.
SHORT = {"l-red": {"tau_max": "2"}}


def short_scan(model: Path, images: Path = IMAGES, **options: object) -> Report:
    report = scanning.scan(
        ScanOptions(model, images, detectors=("l-red",), settings=SHORT, **options)  # type: ignore[arg-type]
    ).report
    jsonschema.Draft202012Validator(schema()).validate(report.to_dict())
    return report


class Wrapped(nn.Module):
    """A bundled network behind another input convention or an output function."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "0-255":
            x = x / 255
        elif self.kind == "half":
            x = x * 0.5 + 0.5
        elif self.kind == "NHWC":
            x = x.permute(0, 3, 1, 2)
        elif self.kind == "rgb":
            x = x[:, 2:3]
        logits: Tensor = self.network(x)
        if self.kind == "first three":
            return logits[:, :3]
        return logits.softmax(1) if self.kind == "softmax" else logits


def wrapped(kind: str, folder: Path) -> Path:
    """A TorchScript file of the bundled network in another convention."""
    network = torch.jit.load(str(BUNDLED / "global.pt"))
    shape = {"NHWC": (2, 28, 28, 1), "rgb": (2, 3, 28, 28)}.get(kind, (2, 1, 28, 28))
    path = folder / f"{kind.replace(' ', '-')}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Wrapped(network, kind), torch.rand(shape)).save(str(path))
    return path


@pytest.fixture(autouse=True)
def _no_deprecation_noise() -> None:
    warnings.simplefilter("ignore")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("plain", "as-is"), ("0-255", "0-255"), ("half", "half"), ("NHWC", "as-is NHWC")],
)
def test_preprocessing_is_found(kind: str, name: str, tmp_path: Path) -> None:
    report = short_scan(wrapped(kind, tmp_path))
    assert report.model.preprocessing.name == name
    assert report.model.preprocessing.chosen == "auto"
    assert report.images.accuracy is not None
    assert report.images.accuracy > 0.8


def test_grey_images_for_an_rgb_model(tmp_path: Path) -> None:
    report = short_scan(wrapped("rgb", tmp_path))
    assert report.model.input_shape == (3, 28, 28)


def test_softmax_is_recognised_and_gives_the_same_patterns(tmp_path: Path) -> None:
    options = ScanOptions(wrapped("plain", tmp_path), IMAGES, detectors=("l-red",))
    options = replace(options, images_per_class=2)
    plain = scanning.scan(options).report
    soft = scanning.scan(replace(options, model=wrapped("softmax", tmp_path))).report
    assert (plain.model.outputs, soft.model.outputs) == ("logits", "probabilities")
    assert any(c.name == "output-kind" and c.status == "note" for c in soft.preflight)
    for a, b in zip(plain.detectors[0].classes, soft.detectors[0].classes, strict=True):
        assert a.size == pytest.approx(b.size, rel=0.02)


def test_nothing_found_with_few_classes_is_inconclusive(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for k in range(3):
        shutil.copytree(IMAGES / f"{k:02d}", images / str(k))
    report = short_scan(wrapped("first three", tmp_path), images)
    assert report.verdict == "inconclusive"
    assert any("with 3 classes" in reason for reason in report.reasons)
    assert any(c.name == "class-count" and c.status == "warning" for c in report.preflight)


def test_subset_of_the_classes_is_enough(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for k in (1, 5, 8):
        shutil.copytree(IMAGES / f"{k:02d}", images / str(k))
    options = ScanOptions(BUNDLED / "badnets.onnx", images, detectors=("l-red-sparse",))
    report = scanning.scan(options).report
    assert len(report.detectors[0].classes) == 10
    assert set(report.detectors[0].sources) == {"1", "5", "8"}
    assert any(c.name == "output-count" and c.status == "note" for c in report.preflight)
    assert report.targets[0].index == 3


def test_wrong_folder_order_is_recognised(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for k in range(10):
        shutil.copytree(IMAGES / f"{k:02d}", images / str((k + 1) % 10))
    report = short_scan(BUNDLED / "clean.onnx", images)
    assert report.verdict == "inconclusive"
    order = next(c for c in report.preflight if c.name == "folder-order")
    assert order.status == "inconclusive"


def test_images_are_resized_and_it_is_said(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for k in range(10):
        (images / str(k)).mkdir(parents=True)
        for file in sorted((IMAGES / f"{k:02d}").iterdir())[:2]:
            Image.open(file).resize((56, 56)).save(images / str(k) / file.name)
    report = short_scan(BUNDLED / "clean.onnx", images)
    assert report.images.resized == report.images.total
    assert any(c.name == "resized" and c.status == "note" for c in report.preflight)


def test_disagreement_with_the_reference_runtime_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(path: Path, options: loaders.LoadOptions) -> loaders.LoadedModel:
        loaded = load_model(path, options)
        reference = loaded.reference
        assert reference is not None
        return replace(loaded, reference=lambda x: np.roll(reference(x), 1, axis=1))

    monkeypatch.setattr(loading, "load_model", wrong)
    with pytest.raises(ModelMismatchError, match="reference runtime"):
        short_scan(BUNDLED / "clean.onnx")


def test_reference_error_is_reported() -> None:
    error = short_scan(BUNDLED / "clean.onnx").model.reference_error
    assert error is not None
    assert error < 1e-4


def test_model_without_patterns_is_inconclusive_not_clean() -> None:
    report = short_scan(BUNDLED / "clean.onnx")
    assert report.verdict == "inconclusive"
    assert "too few" in report.reasons[0]


def test_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="--device cpu"):
        short_scan(BUNDLED / "clean.onnx", device="cuda")
