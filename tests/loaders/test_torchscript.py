"""TorchScript archives."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier
from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders import LoadOptions, load_model


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


def edit(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Rewrite the records of an archive, whose names come without the archive's own."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(name.partition("/")[2], data))


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


class Pair(NamedTuple):
    features: Tensor
    logits: Tensor


class Named(Net):
    def forward(self, x: Tensor) -> Pair:  # type: ignore[override]
        features = torch.relu(self.conv(x))
        return Pair(features, self.head(features.mean((2, 3))))


class Dictionary(Net):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        features = torch.relu(self.conv(x))
        return {"features": features, "logits": self.head(features.mean((2, 3)))}


class Nested(Net):
    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:  # type: ignore[override]
        features = torch.relu(self.conv(x))
        logits = self.head(features.mean((2, 3)))
        return (features, logits), logits + 1


@pytest.mark.parametrize(
    ("kind", "said"), [(Named, "tuple"), (Dictionary, "dict"), (Nested, "tuple")]
)
def test_named_tuples_dicts_and_nested_tuples(tmp_path, x, kind, said):
    module = export(kind(), tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt")
    expected = module.head(torch.relu(module.conv(x)).mean((2, 3)))
    assert torch.allclose(loaded.module(x), expected, atol=1e-6)
    assert loaded.notes[0].startswith(f"The model returns a {said}; its first tensor")


def test_half_precision_with_casts_inside(tmp_path, x):
    class Casts(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.half())

    module = export(Casts().half(), tmp_path / "m.pt", x.half())
    out = Classifier(load_model(tmp_path / "m.pt").module, 5, (3, 8, 8))(x)
    assert out.dtype == torch.float32
    assert torch.allclose(out, module(x).float(), atol=1e-2)


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


@pytest.mark.parametrize("benign_too", [False, True])
def test_code_is_found_whatever_the_case_of_its_name(tmp_path, monkeypatch, benign_too):
    """torch's reader does not distinguish ``code/x.PY`` from ``code/x.py``."""
    monkeypatch.chdir(tmp_path)
    export(WritesAFile(), tmp_path / "m.pt")
    with zipfile.ZipFile("m.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile("m.pt", "w") as archive:
        for name, data in members.items():
            stem, dot, ending = name.rpartition(".")
            archive.writestr(stem + dot + (ending.upper() if ending == "py" else ending), data)
            if ending == "py" and benign_too:
                archive.writestr(name, data.replace(b"torch.save", b"torch.mul"))
    with pytest.raises(UnsafeModelError, match="same name" if benign_too else r"torch\.save"):
        load_model(tmp_path / "m.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ('torch.save(x, "canary")', r"torch\.save"),
        ('torch . save (x, "canary")', r"torch\.save"),
        ('ops.aten.save(x, "canary")', r"aten\.save"),
        ('(x).save("canary")', r"x\.save"),  # many operators are methods of tensors
        ('f = torch.save\n    f(x, "canary")', r"torch\.save"),
        ('t = torch\n    t.save(x, "canary")', r"t\.save"),
        ('getattr(x, "sa" "ve")("canary")', "getattr 'save'"),
        ('getattr(x, "s\\x61ve")("canary")', "getattr 'save'"),
        ('getattr(torch, "save")(x, "canary")', "getattr"),
        ('y = torch.from_file("canary", True, 16)', r"torch\.from_file"),
        ('y = "canary".from_file(True, 16)', r"from_file"),
        ('o = ops\n    o.image.read_file("canary")', "uses ops "),
        ('y = ops.image.read_file("canary")', r"ops\.image"),
        ("y = ops.inductor.resize_storage_bytes_(x, 4)", r"ops\.inductor"),
        ('rpc_sync("a", x, ())', "rpc_sync"),
        ("y = __torch__.torch.classes.some.Thing.x(x)", r"torch\.classes\.some"),
    ],
)
@pytest.mark.parametrize("method", ["forward", "__setstate__"])
def test_every_way_to_name_an_operator_is_seen(tmp_path, monkeypatch, statement, said, method):
    monkeypatch.chdir(tmp_path)
    export(Net(), tmp_path / "m.pt")
    heading = f"  def {method}(self, x: Tensor) -> Tensor:\n    "

    def change(name: str, data: bytes) -> bytes:
        if name.endswith(".py") and b"class Net(" in data:
            return data.rstrip() + f"\n{heading}{statement}\n    return x\n".encode()
        return data

    edit(tmp_path / "m.pt", change)
    with pytest.raises(UnsafeModelError, match=said):
        load_model(tmp_path / "m.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


def test_a_foreign_class_in_the_pickle_is_refused(tmp_path):
    export(Net(), tmp_path / "m.pt")
    edit(
        tmp_path / "m.pt",
        lambda name, data: (
            b"c__torch__.torch.classes.some\nThing\n" + data if name == "data.pkl" else data
        ),
    )
    with pytest.raises(UnsafeModelError, match=r"torch\.classes\.some"):
        load_model(tmp_path / "m.pt")


def test_words_that_are_no_operators_are_allowed(tmp_path, x):
    class Says(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] == 0:
                raise RuntimeError("cannot load or save (nothing)")
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    module = export(Says(), tmp_path / "m.pt")
    assert torch.allclose(load_model(tmp_path / "m.pt").module(x), module(x), atol=1e-6)


@pytest.mark.parametrize("traced", [True, False])
def test_devices_that_the_code_names_are_replaced(tmp_path, x, traced):
    class Grid(Net):
        def forward(self, x: Tensor) -> Tensor:
            ramp = torch.arange(x.shape[3], device=torch.device("cpu"), dtype=torch.float32)
            return self.head(torch.relu(self.conv(x * ramp)).mean((2, 3)))

    module = export(Grid(), tmp_path / "m.pt", x[:2] if traced else None)
    edit(tmp_path / "m.pt", lambda name, data: data.replace(b'device("cpu")', b'device("cuda:0")'))
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        code = b"".join(archive.read(n) for n in archive.namelist() if n.endswith(".py"))
    assert b'torch.device("cuda:0")' in code
    loaded = load_model(tmp_path / "m.pt")
    assert torch.allclose(loaded.module(x), module(x), atol=1e-6)
    # There, too, the device that the code names is the one that the model was moved to.
    moved = loaded.module.to("meta")
    assert moved(x.to("meta")).device.type == "meta"


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("constants.pkl", "code/x.py", "data.pkl"):
            archive.writestr(f"m/{name}", bytes(30 << 20))
    with pytest.raises(UnsafeModelError, match="zip bomb"):
        load_model(tmp_path / "m.pt")


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
    with pytest.raises(ModelFileError, match="damaged TorchScript archive"):
        load_model(tmp_path / "odd.pt")
    edit(tmp_path / "m.pt", lambda name, data: data[:5] if name == "data.pkl" else data)
    with pytest.raises(ModelFileError, match="cannot be loaded as TorchScript"):
        load_model(tmp_path / "m.pt")
    edit(tmp_path / "m.pt", lambda name, data: b"def (" if name.endswith(".py") else data)
    with pytest.raises(ModelFileError, match="holds code that is not valid"):
        load_model(tmp_path / "m.pt")


def test_arch_is_ignored_with_a_note(tmp_path):
    export(Net(), tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", LoadOptions(arch="resnet18"))
    assert "--arch resnet18 is ignored" in loaded.notes[-1]


def test_content_decides_before_the_extension(tmp_path):
    export(Net(), tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").format == "torchscript"
