"""The Python API: the command's scan as a function, for files and for what is in memory."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modelaudit
from modelaudit import (
    CleanImages,
    ModelAuditError,
    Report,
    Verdict,
    __main__,
    load_classifier,
    scan,
)
from modelaudit.errors import ImagesError, ModelFileError, UsageError
from modelaudit.formats import FORMATS
from modelaudit.image_tensors import as_pixels, write_folder
from modelaudit.images import load_pool, read_labels, scan_folder
from modelaudit.isolation.limits import Limits
from modelaudit.keywords import ScanKeywords, options_of
from modelaudit.loaders.module import load_module
from modelaudit.options import ScanOptions
from modelaudit.report import schema
from tests.brightest import SIZE, K, brightest, write_images
from tests.conftest import BUNDLED

ROOT = Path(__file__).parent.parent
IMAGES = BUNDLED / "images"
MM_BD: dict[str, Any] = {"detectors": ["mm-bd"], "device": "cpu"}


class Columns(nn.Module):
    """The network of :func:`tests.brightest.brightest`: the class is the brightest column."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Linear(SIZE, K, bias=False)
        with torch.no_grad():
            self.pick.weight.copy_(10 * torch.eye(K, SIZE))
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("must have 3 channels")
        logits: Tensor = self.pick(x.mean((1, 2)))
        return logits


class Answer(nn.Module):
    """A network that returns what models of other libraries return."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = Columns()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": torch.zeros(()), "logits": self.columns(x)}


def images() -> CleanImages:
    """Eight images of each class, as tensors of bytes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(K).repeat_interleave(8)
    pixels = torch.randint(0, 90, (len(labels), 3, SIZE, SIZE), generator=generator)
    pixels[torch.arange(len(labels)), :, :, labels] += 150
    return CleanImages.from_tensors(pixels.byte(), labels, ["a", "b", "c", "d", "e"])


def without_times(report: Report) -> dict[str, Any]:
    """A report without what differs from run to run."""
    plain = report.to_dict()
    plain.pop("seconds")
    for name in ("created", "threads", "isolation"):
        plain["environment"].pop(name, None)
    for detector in plain["detectors"]:
        detector.pop("seconds")
    return plain


def test_importing_does_not_import_torch() -> None:
    code = (
        "import sys, modelaudit; from modelaudit import scan, Verdict, ModelAuditError; "
        "assert {'scan', 'CleanImages', '__version__'} <= set(dir(modelaudit)); "
        "assert 'torch' not in sys.modules; "
        "import modelaudit.scanning, modelaudit.cli.main; from modelaudit import scan as again; "
        "assert again is scan is modelaudit.scan; "
        "from modelaudit import CleanImages; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    for name in modelaudit.__all__:
        assert getattr(modelaudit, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        modelaudit.nope  # type: ignore[attr-defined]  # noqa: B018
    assert Verdict("no-backdoor-found") is Verdict.NO_BACKDOOR_FOUND
    assert json.dumps(Verdict.BACKDOORED) == '"backdoored"'


def test_every_option_of_a_scan_is_a_keyword() -> None:
    ours = set(ScanKeywords.__annotations__)
    how = set(inspect.signature(options_of).parameters)
    preprocess = {"preprocess", "mean", "std", "input_range", "layout", "channel_order"}
    own = {field.name for field in fields(ScanOptions)} - {"model", "clean_dir", "preprocessing"}
    assert ours == own | preprocess
    assert how == {"model", "clean_dir", "keywords"}
    documented = ScanKeywords.__doc__ or ""
    for name in ours:
        assert re.search(rf"\b{name}\b", documented), name


def test_options_are_those_of_the_command() -> None:
    assert options_of(Path("m"), Path("c"), {}) == ScanOptions(Path("m"), Path("c"))
    options = options_of(
        Path("m"),
        Path("c"),
        {
            "image_size": 32,
            "mean": [0.5],
            "std": (0.5,),
            "settings": {"l-red": {"pi": 0.9, "prior": False}},
            "detectors": ["l-red"],
            "alpha": 0.01,
        },
    )
    assert options.image_size == (32, 32)
    assert options.preprocessing.mean == (0.5,)
    assert options.settings == {"l-red": {"pi": "0.9", "prior": "False"}}
    assert options.detectors == ("l-red",)


def test_the_same_report_as_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    ours = scan(BUNDLED / "clean.onnx", IMAGES, isolation=False, **MM_BD)
    assert ours.verdict is Verdict.NO_BACKDOOR_FOUND
    files = ["scan", str(BUNDLED / "clean.onnx"), "--clean-dir", str(IMAGES)]
    how = ["--detector", "mm-bd", "--device", "cpu", "--no-isolation", "--format", "json"]
    assert __main__.run([*files, *how]) == 0
    plain = json.loads(capsys.readouterr().out)
    numbers = [detector["p_calibrated"] for detector in plain["detectors"]]
    assert numbers == [detector.p_calibrated for detector in ours.detectors]
    assert plain["images"] == ours.to_dict()["images"]


def test_a_backdoor_is_found_in_a_module_in_memory() -> None:
    with pytest.warns(FutureWarning):
        network = torch.jit.load(str(BUNDLED / "global.pt"))
    stages: list[str] = []
    report = scan(
        network,
        IMAGES,
        detectors=["l-red"],
        images_per_class=4,
        progress=lambda stage, share: stages.append(stage),
    )
    assert report.verdict is Verdict.BACKDOORED
    assert "l-red" in stages
    jsonschema.Draft202012Validator(schema()).validate(report.to_dict())
    assert all(render(report) for render in FORMATS.values())
    frame = report._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert "backdoored" in frame
    assert frame.count("<") == 2  # all of the page is escaped


@pytest.mark.parametrize("kind", [Columns, Answer])
def test_a_module_is_copied_and_its_weights_are_hashed(kind: type[nn.Module]) -> None:
    model = kind()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = scan(model, images(), images_per_class=2, **MM_BD)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    assert (report.model.path, report.model.format) == (kind.__name__, "module")
    assert report.model.sha256 == load_module(kind()).sha256
    assert report.model.classes == ("a", "b", "c", "d", "e")
    assert report.images.accuracy == 1
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    assert load_module(model).sha256 != report.model.sha256
    assert "isolation" not in report.environment


def test_images_in_memory_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    pool = load_pool(scan_folder(folder), 3, (SIZE, SIZE), 4, 0)
    model = brightest(tmp_path / "m.onnx")
    given = {**MM_BD, "images_per_class": 4, "isolation": False}
    from_folder = without_times(scan(model, folder, **given))
    for pixels in (pool.pixels, (pool.pixels * 255).round().byte(), pool.pixels.numpy()):
        there = without_times(
            scan(model, CleanImages.from_tensors(pixels, pool.labels.tolist()), **given)
        )
        assert there["detectors"] == from_folder["detectors"]
        assert there["model"]["preprocessing"] == from_folder["model"]["preprocessing"]
        for name in ("counts", "accuracy", "pool", "mapping"):
            assert there["images"][name] == from_folder["images"][name]
        assert there["images"]["directory"] == "(in memory)"
        assert there["images"]["warnings"] == []
        assert str(tmp_path) not in json.dumps({**there, "model": None})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_survive_the_folder(channels: int, tmp_path: Path) -> None:
    pixels = torch.arange(3 * channels * 20 * 4).remainder(256).byte().view(3, channels, 20, 4)
    given = CleanImages.from_tensors(pixels, [2, 0, 2], ["a", "b", "c"])
    labels = write_folder(given.pixels, given.labels, given.class_names, tmp_path)
    assert labels is not None
    assert read_labels(labels) == ("a", "b", "c")
    pool = load_pool(scan_folder(tmp_path, read_labels(labels)), channels, (20, 4), 2, 0)
    order = sorted(range(3), key=lambda i: pool.files[i].name)
    assert torch.equal(pool.pixels[order], given.pixels)
    assert pool.labels[order].tolist() == [2, 0, 2]


def test_images_in_memory_reach_a_worker(tmp_path: Path) -> None:
    report = scan(brightest(tmp_path / "m.onnx"), images(), images_per_class=4, **MM_BD)
    assert report.model.classes == ("a", "b", "c", "d", "e")
    assert report.settings["labels"] == "(in memory)"
    assert report.environment["isolation"]


def test_pixels_between_bytes_are_rounded_and_that_is_said() -> None:
    given = images()
    pixels = (given.pixels + 0.001).clamp(0, 1)
    report = scan(Columns(), CleanImages.from_tensors(pixels, given.labels), **MM_BD)
    assert "rounded to 8 bits" in report.images.warnings[-1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_all_channels(channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].bias.fill_(-5)  # so that nobody takes the outputs for probabilities
    pixels = torch.randint(0, 255, (8, channels, 6, 6)).byte()
    given = CleanImages.from_tensors(pixels, [0, 1, 2, 3] * 2)
    classifier = load_classifier(model, given, preprocess="as-is", layout="NCHW")
    assert classifier.input_shape == (channels, 6, 6)
    found = classifier(given.pixels)
    assert torch.allclose(found, model.eval()(given.pixels), atol=1e-5)


def test_load_classifier() -> None:
    classifier = load_classifier(BUNDLED / "clean.onnx", IMAGES)
    assert classifier.num_classes == 10
    assert classifier.preprocessing.name == "as-is"
    assert classifier(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("pixels", "labels", "words"),
    [
        ("text", [0], "found str"),
        (torch.zeros(2, 3), [0, 1], r"the shape \[2, 3\]"),
        (torch.zeros(2, 5, 4, 4), [0, 1], r"the shape \[2, 5, 4, 4\]"),
        (torch.zeros(0, 3, 4, 4), [], r"the shape \[0, 3, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4).long(), [0, 1], "torch.int64"),
        (torch.full((2, 3, 4, 4), 1.5), [0, 1], "before they are normalised"),
        (torch.full((2, 3, 4, 4), torch.nan), [0, 1], "from nan to nan"),
        (torch.zeros(2, 3, 4, 4), [0], r"found the shape \[1\]"),
        (torch.zeros(2, 3, 4, 4), [0.0, 1.0], "torch.float32"),
        (torch.zeros(2, 3, 4, 4), [0, -1], "found -1"),
        (torch.zeros(2, 3, 4, 4), [0, 2], "2 names, but a label 2"),
        (torch.zeros(2, 3, 4, 4), ["a", "b"], "found list"),
    ],
)
def test_wrong_images_say_what_would_fit(pixels: Any, labels: Any, words: str) -> None:
    with pytest.raises(ImagesError, match=words):
        CleanImages.from_tensors(pixels, labels, ["a", "b"])


def test_pixels_have_one_form() -> None:
    half = as_pixels(np.full((1, 1, 2, 2), 128, np.uint8))
    assert half.dtype == torch.float32
    assert torch.allclose(half, torch.tensor(128 / 255))
    assert as_pixels(torch.zeros(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detector": ["l-red"]}, "did you mean 'detectors'"),
        ({"xyz": 1}, "there are: labels"),
        ({"alpha": "small"}, "alpha: float expected, found str"),
        ({"alpha": 2.0}, "between 0 and 1"),
        ({"preset": "slow"}, "default, fast, thorough"),
        ({"detectors": "l-red"}, "list expected, found str"),
        ({"detectors": ["nope"]}, "there is no detector 'nope'"),
        ({"settings": {"l-red": 3}}, "detector -> setting -> value"),
        ({"settings": {"l-red": {"nope": 3}}}, "no setting 'nope'"),
        ({"seed": torch.ones(1)}, "Tensor has no plain form"),
        ({"mean": "x"}, "--mean takes numbers"),
        ({"preprocess": "nope"}, "nope"),
        ({"image_size": (1, 2, 3)}, "2 values expected"),
        ({"limits": Limits()}, "isolation=False"),
        ({"device": "tpu"}, "expected auto, cpu or cuda"),
    ],
)
def test_wrong_options_are_typed_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scan(BUNDLED / "clean.onnx", IMAGES, isolation=False, **options)


def test_wrong_models_and_images_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"path of a model or a torch.nn.Module; found int"):
        scan(3, IMAGES)  # type: ignore[arg-type]
    with pytest.raises(ImagesError, match="found Tensor"):
        scan(Columns(), torch.zeros(1, 3, 6, 6))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=r"none\.onnx"):
        scan(tmp_path / "none.onnx", IMAGES)
    with pytest.raises(UsageError, match="drop those or labels"):
        scan(Columns(), images(), labels=BUNDLED / "labels.txt")
    with pytest.raises(UsageError, match="for a module in memory"):
        scan(Columns(), images(), limits=Limits())
    with pytest.raises(UsageError, match="arch is for files"):
        scan(Columns(), images(), arch="resnet18")
    with pytest.raises(ModelFileError, match="does not accept images"):
        scan(Columns(), CleanImages.from_tensors(torch.rand(2, 3, 6, 4), [0, 1]), layout="NCHW")
    assert issubclass(UsageError, ModelAuditError)


def test_a_gate_in_pytest_takes_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/how-to/python.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) == 3
    scope: dict[str, Any] = {}
    code = code.replace('"model.onnx"', repr(str(BUNDLED / "clean.onnx")))
    exec(code.replace('"clean-images"', repr(str(IMAGES))), scope)
    monkeypatch.setitem(scope, "scan", lambda *given: scan(*given, isolation=False, **MM_BD))
    scope["test_the_model_shows_no_backdoor"]()
