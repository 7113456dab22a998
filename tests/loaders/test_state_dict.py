"""Weights without a graph: safetensors and state dicts with ``--arch``."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from modelaudit.errors import ModelFileError, UnsafeModelError, UsageError
from modelaudit.loaders import LoadOptions, load_model
from modelaudit.loaders.architectures import resolve_architecture
from modelaudit.loaders.nearest import Candidate, nearest

FACTORIES = f"{__name__}:"


class Small(nn.Module):
    """Takes one channel; its head is not its last layer by name."""

    def __init__(self, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.z_conv = nn.Conv2d(channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.a_head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.a_head(self.norm(self.z_conv(x)).mean((2, 3)))


def fixed() -> nn.Module:
    return Small(7)


def not_a_module(num_classes: int) -> str:
    return "no"


def fails(num_classes: int) -> nn.Module:
    raise RuntimeError("out of luck")


SMALL = LoadOptions(arch=f"{FACTORIES}Small")


def save(content: object, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "arch": "small"},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module._orig_mod.model.{k}": v for k, v in s.items()}},
        lambda s: {f"model.module.model.{k}": v for k, v in s.items()},
        lambda s: {f"net.backbone.{k}": v for k, v in s.items()},
        lambda s: {k.replace(".", "._orig_mod.", 1): v for k, v in s.items()},
        lambda s: {k if k.startswith("a_") else f"module.{k}": v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
        lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_in_every_wrapping(tmp_path, x, wrap, legacy):
    torch.manual_seed(0)
    module = Small(6).eval()
    loaded = load_model(save(wrap(module.state_dict()), tmp_path / "m.pth", legacy), SMALL)
    assert loaded.format == "state-dict"
    assert loaded.num_classes == 6
    assert loaded.input_shape == (1, None, None)
    assert torch.allclose(loaded.module(x), module(x), atol=1e-3)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert not loaded.module.training
    assert loaded.details["parameters"] == str(sum(p.numel() for p in module.parameters()))


def test_safetensors_whose_order_is_not_the_models(tmp_path, x):
    module = Small(6).eval()
    safetensors.torch.save_file(module.state_dict(), tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", SMALL)
    assert loaded.format == "safetensors"
    assert loaded.num_classes == 6
    assert torch.equal(loaded.module(x), module(x))


@pytest.mark.parametrize("arch", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_models(tmp_path, arch):
    module = torchvision.models.get_model(arch, weights=None, num_classes=13).eval()
    loaded = load_model(save(module.state_dict(), tmp_path / "m.pt"), LoadOptions(arch=arch))
    x = torch.rand(1, 3, 64, 64)
    assert loaded.num_classes == 13
    assert loaded.input_shape == (3, None, None)
    assert torch.equal(loaded.module(x), module(x))


def test_a_factory_without_num_classes(tmp_path):
    path = save(fixed().state_dict(), tmp_path / "m.pth")
    loaded = load_model(path, LoadOptions(arch=f"{FACTORIES}fixed"))
    assert loaded.num_classes is None
    assert loaded.module(torch.rand(1, 1, 5, 5)).shape == (1, 7)


# What the user asked for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        (None, "Give --arch with a torchvision model name"),
        ("resnet81", r"not a torchvision classification model\. Close: resnet18"),
        ("fasterrcnn_resnet50_fpn", "not a torchvision classification model"),
        ("no_such_package.x:f", "cannot import 'no_such_package.x'"),
        (":f", "cannot import ''"),
        (f"{FACTORIES}Smal", r"no callable 'Smal'\. Close: Small"),
        (f"{FACTORIES}not_a_module", "returned str; expected a torch.nn.Module"),
        (f"{FACTORIES}fails", "RuntimeError: out of luck"),
    ],
)
@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_unusable_arch(tmp_path, arch, said, name):
    weights = Small().state_dict()
    if name.endswith("pth"):
        save(weights, tmp_path / name)
    else:
        safetensors.torch.save_file(weights, tmp_path / name)
    with pytest.raises(UsageError, match=said):
        load_model(tmp_path / name, LoadOptions(arch=arch))


def test_own_code_that_fails_on_import(tmp_path, monkeypatch):
    (tmp_path / "broken_code_of_a_user.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = save(Small().state_dict(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        load_model(path, LoadOptions(arch="broken_code_of_a_user:f"))


# Weights that do not fit ----------------------------------------------------------------------


def test_weights_of_another_architecture(tmp_path):
    weights = {f"layer{i}.weight": torch.zeros(2, 2) for i in range(50)}
    weights["norm.weight"] = torch.zeros(9)
    with pytest.raises(ModelFileError) as caught:
        load_model(save(weights, tmp_path / "m.pth"), SMALL)
    message = str(caught.value)
    assert "missing: z_conv.weight" in message
    assert "unexpected: layer0.weight" in message
    assert "shape: norm.weight: [9] in the file, [4] expected" in message
    assert len(message.splitlines()) <= 12


def resnet18(num_classes: int = 7) -> dict[str, Tensor]:
    return torchvision.models.resnet18(weights=None, num_classes=num_classes).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_a_missing_arch_is_named_when_it_is_sure(tmp_path, prefix, name):
    weights = {prefix + key: value for key, value in resnet18().items()}
    if name.endswith("pth"):
        save(weights, tmp_path / name)
    else:
        safetensors.torch.save_file(weights, tmp_path / name)
    with pytest.raises(UsageError, match="These weights fit --arch resnet18 exactly; give it"):
        load_model(tmp_path / name)


def test_the_nearest_architectures_and_the_first_differences(tmp_path):
    path = save(resnet18(), tmp_path / "m.pth")
    with pytest.raises(ModelFileError) as caught:
        load_model(path, LoadOptions(arch="resnet50"))
    message = str(caught.value)
    assert "These weights fit --arch resnet18 exactly" in message
    assert "missing: layer1.0.conv3.weight" in message
    assert len(message.splitlines()) <= 10


def test_similar_architectures_are_ranked(tmp_path):
    weights = {k: v for k, v in resnet18().items() if not k.startswith("layer4.1.")}
    found = nearest(weights)
    assert [candidate.arch for candidate in found] == ["resnet18", "resnet34", "resnet50"]
    assert 0.8 < found[0].similarity < 1
    with pytest.raises(UsageError, match=r"Nearest torchvision architectures: resnet18 \(\d\d%"):
        load_model(save(weights, tmp_path / "m.pth"))


def test_weights_like_nothing_in_torchvision(tmp_path):
    with pytest.raises(UsageError, match="No torchvision architecture is similar"):
        load_model(save(Small().state_dict(), tmp_path / "m.pth"))


@pytest.mark.parametrize("arch", ["swin_t", "mnasnet0_5"])
def test_other_families_are_found(arch):
    weights = resolve_architecture(arch).build(9).state_dict()
    assert nearest(weights)[0] == Candidate(arch, 1.0)


def test_wrong_num_classes(tmp_path):
    path = save(Small(6).state_dict(), tmp_path / "m.pth")
    options = LoadOptions(arch=SMALL.arch, num_classes=8)
    with pytest.raises(ModelFileError, match=r"with 8 classes:\n  shape: a_head.weight: \[6, 4\]"):
        load_model(path, options)


def test_a_guessed_number_of_classes_and_counters_are_not_in_the_message(tmp_path):
    weights = {"layer.weight": torch.zeros(32, 2), "bn.num_batches_tracked": torch.tensor(0)}
    with pytest.raises(ModelFileError) as caught:
        load_model(save(weights, tmp_path / "m.pth"), SMALL)
    message = str(caught.value)
    assert f"do not fit --arch {SMALL.arch}:\n" in message
    assert "32 classes" not in message
    assert "num_batches_tracked" not in message


def test_wrong_number_of_channels(tmp_path):
    path = save(Small(channels=3).state_dict(), tmp_path / "m.pth")
    with pytest.raises(ModelFileError, match=r"\(z_conv.weight\) takes 3 channels.* 1\."):
        load_model(path, SMALL)
    module = torchvision.models.squeezenet1_1(weights=None, num_classes=3)
    weights = module.state_dict()
    weights["features.0.weight"] = weights["features.0.weight"][:, :1]
    path = save(weights, tmp_path / "s.pth")
    with pytest.raises(ModelFileError, match=r"takes 1 channels.*torchvision's models take 3"):
        load_model(path, LoadOptions(arch="squeezenet1_1"))


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), {}, {"state_dict": {"a": 1}}, 5])
def test_files_without_weights(tmp_path, content):
    with pytest.raises(ModelFileError, match="holds no state dict"):
        load_model(save(content, tmp_path / "m.pth"), SMALL)


# Hostile and damaged files --------------------------------------------------------------------


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("options", [SMALL, LoadOptions()])
def test_a_pickle_payload_does_not_run(tmp_path, writer, options):
    canary, path = tmp_path / "canary", tmp_path / "m.pth"
    content = {"state_dict": Small().state_dict(), "extra": Payload(canary)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Payload(canary), protocol=2))
    else:
        save(content, path, legacy=writer == "legacy")
    with pytest.raises(ModelFileError, match=r"refused|damaged") as caught:
        load_model(path, options)
    assert not canary.exists()
    if writer != "pickle":
        assert isinstance(caught.value, UnsafeModelError)
        assert "system" in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_pickled_module_is_refused_with_a_way_out(tmp_path, legacy):
    path = save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m.pt", legacy)
    with pytest.raises(UnsafeModelError) as caught:
        load_model(path, SMALL)
    assert "torch.nn.modules.container.Sequential" in str(caught.value)
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert "torch.onnx.export" in str(caught.value)


def test_damaged_files(tmp_path):
    path = tmp_path / "m.pth"
    path.write_bytes(b"\x80\x02garbage")
    with pytest.raises(ModelFileError, match="damaged PyTorch file"):
        load_model(path, SMALL)
    safetensors.torch.save_file(Small().state_dict(), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-40])
    with pytest.raises(ModelFileError, match="damaged safetensors file"):
        load_model(tmp_path / "m.safetensors", SMALL)
