"""torchvision families through both exporters, against ONNX Runtime and the torch module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock

from fixtures.onnx_compare import cosine, gradient, relative_error
from fixtures.onnx_export import Exporter, export
from fixtures.onnx_models import randomize
from modelaudit.loaders.onnx_file import load_onnx
from modelaudit.loaders.types import LoadOptions

SIZE = 32
SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(num_classes=10, width_mult=0.25),
    "densenet": lambda: DenseNet(8, (2, 2), 16, num_classes=10),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(num_classes=10),
    "convnext": lambda: models.ConvNeXt(
        [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=10
    ),
    "vit": lambda: models.VisionTransformer(SIZE, 8, 2, 2, 32, 64, num_classes=10),
    "squeezenet": lambda: models.squeezenet1_1(num_classes=10),
    "maxvit": lambda: models.MaxVit((SIZE, SIZE), 8, 2, [8, 16], [1, 1], 8, 0.0, num_classes=10),
    "swin": lambda: models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [3, 3], num_classes=10),
}
NEWEST: dict[Exporter, int] = {"torchscript": 20, "dynamo": 25}
CASES: list[tuple[str, Exporter, int]] = [
    *[(name, "torchscript", 11) for name in ("resnet", "convnext", "mobilenet_v3")],
    ("vit", "torchscript", 14),  # the oldest that the exporter can express it in
    *[(name, "torchscript", NEWEST["torchscript"]) for name in SMALL],
    *[(name, "dynamo", NEWEST["dynamo"]) for name in ("convnext", "vit")],
    ("resnet", "dynamo", 18),
]


@functools.cache
def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomize(SMALL[name](), SIZE)


@pytest.mark.parametrize(("name", "exporter", "opset"), CASES)
def test_import_computes_what_the_source_computes(
    name: str, exporter: Exporter, opset: int, tmp_path: Path
) -> None:
    module, images = small(name), torch.rand(3, 3, SIZE, SIZE)
    path = export(module, tmp_path / "model.onnx", exporter, opset, images[:2])
    loaded = load_onnx(path, LoadOptions())
    assert loaded.notes == ()
    assert loaded.num_classes == 10
    assert loaded.details["opset"].startswith(str(opset))
    assert loaded.reference is not None
    expected = torch.from_numpy(loaded.reference(images.numpy()))
    scores, ours = gradient(loaded.module, images)
    assert relative_error(scores, expected) < 1e-4
    assert cosine(ours, gradient(module, images)[1]) > 0.9999
    alone = torch.cat([loaded.module(image[None]) for image in images])
    assert relative_error(alone, expected) < 1e-4


def test_batch_of_one_in_the_file_runs_with_any_batch(tmp_path: Path) -> None:
    module, images = small("vit"), torch.rand(3, 3, SIZE, SIZE)
    path = export(module, tmp_path / "model.onnx", "torchscript", 18, images[:1], dynamic=False)
    loaded = load_onnx(path, LoadOptions())
    (scores, ours), (expected, theirs) = gradient(loaded.module, images), gradient(module, images)
    assert relative_error(scores, expected) < 1e-4
    assert cosine(ours, theirs) > 0.9999
