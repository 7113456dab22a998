"""TorchScript archives, and telling files apart by their content."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier
from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders import LoadOptions, load_model, sha256_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Several(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]
        return self.conv(x), {"logits": self.head(torch.relu(self.conv(x)).mean((2, 3)))}


class WritesAFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "canary")
        return x.mean((2, 3))


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def export(module: nn.Module, path: Path, example: Tensor | None = None) -> nn.Module:
    """Trace with an example, else script; returns the module in eval mode."""
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(module, example) if example is not None else None
        torch.jit.save(script or torch.jit.script(module), str(path))
    return module


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("traced", [True, False])
def test_outputs_and_gradients_match_at_any_batch_size(tmp_path, x, traced):
    torch.manual_seed(0)
    module = export(Net(), tmp_path / "m.pt", x[:2] if traced else None)
    loaded = load_model(tmp_path / "m.pt")
    assert loaded.format == "torchscript"
    assert loaded.input_shape == (3, None, None)
    assert loaded.details["parameters"] == f"{sum(p.numel() for p in module.parameters())}"
    assert loaded.notes == ()
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert not any(m.training for m in loaded.module.modules())
    for batch in (6, 5, 5, 1, 6):
        ours, theirs = (x[:batch].clone().requires_grad_() for _ in range(2))
        out, expected = loaded.module(ours), module(theirs)
        assert torch.allclose(out, expected, atol=1e-6)
        out.logsumexp(1).sum().backward()
        expected.logsumexp(1).sum().backward()
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_only_the_deprecation_of_loading_is_silenced(tmp_path):
    export(Net(), tmp_path / "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(tmp_path / "m.pt")


def test_the_first_matrix_among_several_outputs_is_used(tmp_path, x):
    module = export(Several(), tmp_path / "m.ts")
    loaded = load_model(tmp_path / "m.ts", LoadOptions(num_classes=5))
    assert torch.allclose(loaded.module(x), module(x)[1]["logits"])
    assert loaded.notes == ("The model returns a tuple; its first tensor of shape [B, K] is used.",)
    assert loaded.num_classes == 5


def test_without_a_matrix_the_shape_is_named(tmp_path, x):
    export(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"outputs \[6, K\] expected, got \[6, 4, 6, 6\]"):
        load_model(tmp_path / "m.pt").module(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_float_types_are_computed_in_float32(tmp_path, x, dtype):
    module = export(Net().to(dtype), tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt")
    assert loaded.details["dtype"] in loaded.notes[0]
    out = loaded.module(x)
    assert out.dtype == torch.float32
    assert torch.allclose(out, module.float()(x), atol=1e-5)


def test_a_graph_with_its_own_dtype_falls_back(tmp_path, x):
    class Casts(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.double())

    module = export(Casts().double(), tmp_path / "m.pt", x.double())
    loaded = load_model(tmp_path / "m.pt")
    with pytest.raises(RuntimeError):
        loaded.module(x[:, :2])  # fails in either type and decides nothing
    classifier = Classifier(loaded.module, 5, (3, 8, 8))
    x = x.requires_grad_()
    logits = classifier(x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits.double(), module(x), atol=1e-6)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0


def test_code_that_writes_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(WritesAFile(), tmp_path / "m.pt")
    with pytest.raises(UnsafeModelError, match=r"torch\.save"):
        load_model(tmp_path / "m.pt")
    assert not (tmp_path / "canary").exists()


def test_not_a_function_of_one_tensor(tmp_path):
    export(TwoInputs(), tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"takes 2 inputs \(x, y\)"):
        load_model(tmp_path / "m.pt")


def test_damaged_archives(tmp_path):
    export(Net(), tmp_path / "m.pt")
    whole = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="damaged zip archive"):
        load_model(tmp_path / "cut.pt")
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        for name in ("constants.pkl", "code/x.py", "data.pkl", "version"):
            archive.writestr(f"odd/{name}", "nonsense")
    with pytest.raises(ModelFileError, match="cannot be loaded as TorchScript"):
        load_model(tmp_path / "odd.pt")


def test_arch_is_ignored_with_a_note(tmp_path):
    export(Net(), tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", LoadOptions(arch="resnet18"))
    assert "--arch resnet18 is ignored" in loaded.notes[-1]


def test_content_decides_before_the_extension(tmp_path):
    export(Net(), tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").format == "torchscript"


def zipped(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "{}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.h5", b"\x89HDF\r\n\x1a\n....", r"tf2onnx\.convert --keras .*m\.h5 --output m\.onnx"),
        ("m.h5", b"text", r"tf2onnx\.convert --keras"),
        ("m.keras", zipped("config.json", "model.weights.h5"), r"--keras .*m\.keras"),
        ("m.tflite", b"\x1c\x00\x00\x00TFL3....", r"tf2onnx\.convert --tflite .*m\.tflite"),
        ("saved_model.pb", b"\x08\x01\x12\x00", r"tf2onnx\.convert --saved-model"),
        ("m.pt2", zipped("m/archive_format", "m/models/model.json"), "not supported yet"),
        ("m.pt2", b"text", "not supported yet"),
        ("m.zip", zipped("a.txt"), "holds no known model; expected ONNX"),
        ("m.bin", b"nothing known", "not a known model file by its content; expected ONNX"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("m.pt", b"", "is empty"),
        ("m.pt", b"PK\x03\x04 and so on", "damaged zip archive"),
    ],
)
def test_files_that_are_not_read(tmp_path, name, content, said):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in content.items():
                archive.writestr(member, text)
    with pytest.raises(ModelFileError, match=said):
        load_model(path)


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(ModelFileError, match="There is no model file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="is a directory; expected a model file"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ModelFileError, match=r"tf2onnx\.convert --saved-model"):
        load_model(tmp_path)


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(ModelFileError, match="Cannot read"):
        sha256_of(tmp_path / "none")
