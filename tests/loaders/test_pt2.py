"""torch.export archives: what they compute, and that nothing in them runs."""

from __future__ import annotations

import copy
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders import load_model
from tests.loaders.test_state_dict import Payload


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.conv(x))) + self.shift.view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.drop(self.features(x).mean((2, 3))))


class Several(Net):
    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return {"maps": features, "scores": (self.head(features.mean((2, 3))), features)}


class FixesBatch(Net):
    """Mixes the batch size into its shapes, as ``int(x.shape[0])`` does."""

    def forward(self, x: Tensor) -> Any:
        maps = self.features(x)
        return self.head(maps.reshape(int(x.shape[0]), 2, 2, -1).flatten(1, 2).mean(2))


class WithoutGradients(Net):
    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            x = x * 2 - 1
        return super().forward(x)


def export(
    module: nn.Module, path: Path, x: Tensor, dynamic: Any = None, decompose: bool = False
) -> nn.Module:
    """Write an archive of the module, in the mode in which it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (x,), dynamic_shapes=dynamic)
        program = program.run_decompositions() if decompose else program
        torch.export.save(program, path)
    return module


ANY_BATCH = ({0: Dim.DYNAMIC},)


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(6, 3, 8, 8)


def agrees(ours: nn.Module, theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Outputs and gradients, at batch sizes that an export may treat apart."""
    for batch in (6, 5, 1, 2):
        mine, yours = (x[:batch].clone().requires_grad_() for _ in range(2))
        out, expected = ours(mine), theirs(yours)
        assert torch.allclose(out, expected, atol=1e-5)
        out.logsumexp(1).sum().backward()
        expected.logsumexp(1).sum().backward()
        assert torch.allclose(mine.grad, yours.grad, atol=1e-5)


@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("dynamic", [ANY_BATCH, None])
def test_outputs_and_gradients(tmp_path, x, dynamic, decompose):
    module = export(Net().eval(), tmp_path / "m.pt2", x[:2], dynamic, decompose)
    loaded = load_model(tmp_path / "m.pt2")
    assert (loaded.format, loaded.layout, loaded.num_classes) == ("pt2", "NCHW", 5)
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.notes == ()
    assert not any(tensor.requires_grad for tensor in loaded.module.buffers())
    agrees(loaded.module, module, x)
    assert loaded.details["producer"].startswith("torch ")


def test_open_height_and_width(tmp_path, x):
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    module = export(Net().eval(), tmp_path / "m.pt2", x[:2], sizes)
    loaded = load_model(tmp_path / "m.pt2")
    assert loaded.input_shape == (3, None, None)
    agrees(loaded.module, module, torch.rand(6, 3, 11, 9))


@pytest.mark.parametrize(("batch", "said"), [(1, "runs vectorized"), (4, "runs 4 at a time")])
def test_a_fixed_batch(tmp_path, x, batch, said):
    module = export(FixesBatch().eval(), tmp_path / "m.pt2", x[:batch])
    loaded = load_model(tmp_path / "m.pt2")
    assert said in loaded.notes[0]
    agrees(loaded.module, module, x)


def test_shapes_that_are_computed(tmp_path, x):
    class Shuffles(Net):
        def forward(self, x: Tensor) -> Any:
            maps = self.features(x)
            batch, channels, height, width = maps.shape
            halves = maps.view(batch, 2, channels // 2, height * width).transpose(1, 2).chunk(2, 1)
            return self.head(torch.cat(halves, 1).reshape(batch, channels, -1).mean(2))

    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    module = export(Shuffles().eval(), tmp_path / "m.pt2", x[:2], sizes)
    agrees(load_model(tmp_path / "m.pt2").module, module, x)


def test_regions_without_gradients_have_them(tmp_path, x):
    module = export(WithoutGradients().eval(), tmp_path / "m.pt2", x, ANY_BATCH)
    loaded = load_model(tmp_path / "m.pt2")
    plain = Net().eval()
    plain.load_state_dict(module.state_dict())
    agrees(loaded.module, lambda image: plain(image * 2 - 1), x)


def test_training_mode_is_left(tmp_path, x):
    module = export(Net().train(), tmp_path / "m.pt2", x, ANY_BATCH)
    loaded = load_model(tmp_path / "m.pt2")
    assert "exported in training mode" in loaded.notes[0]
    saved = loaded.module.state_dict()
    agrees(loaded.module, module.eval(), x)
    assert all(torch.equal(saved[key], value) for key, value in loaded.module.state_dict().items())


def test_several_outputs(tmp_path, x):
    module = export(Several().eval(), tmp_path / "m.pt2", x, ANY_BATCH)
    loaded = load_model(tmp_path / "m.pt2")
    assert loaded.notes == ("The model has 3 outputs; its first of shape [B, K] is used.",)
    agrees(loaded.module, lambda image: module(image)["scores"][0], x)


def test_half_precision(tmp_path, x):
    module = export(Net().eval().half(), tmp_path / "m.pt2", x.half(), ANY_BATCH)
    loaded = load_model(tmp_path / "m.pt2")
    assert "float16" in loaded.notes[0]
    assert loaded.details["dtype"] == "float16"
    agrees(loaded.module, copy.deepcopy(module).float(), x)


def test_a_device_that_is_not_here(tmp_path, x):
    class Ramp(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x * torch.arange(8, device=x.device, dtype=torch.float32))

    module = export(Ramp().eval(), tmp_path / "m.pt2", x, ANY_BATCH)
    rewrite(tmp_path / "m.pt2", lambda name, data: data.replace(b'"cpu"', b'"cuda"'))
    agrees(load_model(tmp_path / "m.pt2").module, module, x)


def test_the_callers_image_is_not_changed(tmp_path, x):
    class InPlace(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.sub_(0.5))

    export(InPlace().eval(), tmp_path / "m.pt2", x.clone(), ANY_BATCH)
    image = x.clone()
    load_model(tmp_path / "m.pt2").module(image)
    assert torch.equal(image, x)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((6, 3), r"input has 2 dimensions; images have 4"), (None, r"takes 2 inputs \(x, y\)")],
)
def test_no_image_classifiers(tmp_path, shape, said):
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if shape is None:
            program = torch.export.export(Two(), (torch.rand(2, 3), torch.rand(2, 3)))
        else:
            program = torch.export.export(nn.Linear(3, 2), (torch.rand(shape),))
        torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelFileError, match=said):
        load_model(tmp_path / "m.pt2")


def test_the_layout_of_older_versions(tmp_path, x):
    module = export(Net().eval(), tmp_path / "new.pt2", x, ANY_BATCH)
    with zipfile.ZipFile(tmp_path / "new.pt2") as archive:
        program = archive.read("new/models/model.json")
    weights, constants = io.BytesIO(), io.BytesIO()
    torch.save(module.state_dict(), weights)
    torch.save({"shift": torch.ones(4)}, constants)
    old = {
        "version": b"8.2",
        "serialized_exported_program.json": program,
        "serialized_state_dict.pt": weights.getvalue(),
        "serialized_constants.pt": constants.getvalue(),
        "serialized_example_inputs.pt": pickle.dumps(Payload(tmp_path / "canary")),
    }
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        for name, data in old.items():
            archive.writestr(name, data)
    agrees(load_model(tmp_path / "old.pt2").module, module, x)
    assert not (tmp_path / "canary").exists()


# Hostile files --------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> None:
    """Change the records of an archive; ``None`` drops one, and ``a__b=`` adds ``a/b``."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            changed = change(name.partition("/")[2], data)
            if changed is not None:
                archive.writestr(name, changed)
        for name, data in added.items():
            archive.writestr(f"{root}/{name.replace('__', '/')}", data)


def rewrite_json(path: Path, record: str, change: Callable[[Any], None]) -> None:
    def changed(name: str, data: bytes) -> bytes:
        if name != record:
            return data
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    rewrite(path, changed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> bytes:
    """An archive with open sizes, whose file holds expressions therefore."""
    path = tmp_path_factory.mktemp("pt2") / "m.pt2"
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    export(Net().eval(), path, torch.rand(2, 3, 8, 8), sizes)
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path, exported) -> Path:
    (tmp_path / "m.pt2").write_bytes(exported)
    return tmp_path / "m.pt2"


def payloads(canary: Path) -> list[bytes]:
    """A pickle that touches a file, as it is and as torch.save writes it."""
    saved = io.BytesIO()
    torch.save(Payload(canary), saved)
    return [pickle.dumps(Payload(canary)), saved.getvalue()]


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("slot", ["weights", "constants", "custom", "opaque", "legacy"])
def test_a_payload_in_a_pickle_does_not_run(tmp_path, archive, slot, form):
    canary = tmp_path / "canary"
    data = payloads(canary)[form]
    folder, table = ("weights", "conv.weight") if slot == "weights" else ("constants", "shift")
    files = {"custom": "custom_obj_0", "opaque": "opaque_obj_0"}
    file = files.get(slot, "weight_0" if slot == "weights" else "tensor_0")

    def change(content: Any) -> None:
        content["config"][table].update(path_name=file, use_pickle=True)

    rewrite_json(archive, f"data/{folder}/model_{folder}_config.json", change)
    added = f"data__{folder}__{file}" if slot != "legacy" else "data__weights__model.pt"
    taken = added.replace("__", "/")
    rewrite(archive, lambda name, old: None if name == taken else old, **{added: data})
    with pytest.raises(UnsafeModelError, match="is refused"):
        load_model(archive)
    assert not canary.exists()


def test_sample_inputs_and_extra_files_are_never_read(tmp_path, archive):
    never = ("data/sample_inputs", "extra/")
    for added, data in enumerate(payloads(tmp_path / "canary")):
        rewrite(
            archive,
            lambda name, old, data=data: data if name.startswith(never) else old,
            **({} if added else {"extra__note": data}),
        )
        load_model(archive)
    assert not (tmp_path / "canary").exists()


def test_an_expression_is_not_evaluated(tmp_path, archive):
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"

    def change(content: Any) -> None:
        for meta in content["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        content["guards_code"] = [code]
        content["range_constraints"] = {code: {"min_val": 2, "max_val": None}}

    rewrite_json(archive, "models/model.json", change)
    load_model(archive).module(torch.rand(2, 3, 8, 8))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("torch.os.system", {"as_string": "touch canary"}),
        ("torch.ops.aten.from_file.default", {"as_string": "canary"}),
        ("torch.ops.aten.save.default", {"as_string": "canary"}),
        ("torch.ops.image.read_file.default", {"as_string": "canary"}),
        ("torch.ops.aten.set_.source_Storage", {"as_int": 0}),
        ("torch.ops.aten.add.__class__", {"as_int": 0}),
        ("torch.ops.higher_order.triton_kernel_wrapper_functional", {"as_int": 0}),
        ("_operator.methodcaller", {"as_string": "touch"}),
        ("math.__loader__", {"as_int": 0}),
        ("os.system", {"as_string": "touch canary"}),
        ("#extension:thing", {"as_int": 0}),
        ("torch.ops.aten.add.Tensor\n", {"as_int": 0}),
    ],
)
def test_operators_that_are_not_listed_are_refused(tmp_path, monkeypatch, archive, target, value):
    monkeypatch.chdir(tmp_path)

    def change(content: Any) -> None:
        node = content["graph_module"]["graph"]["nodes"][0]
        node.update(target=target, inputs=[{"name": "self", "arg": value, "kind": 1}])

    rewrite_json(archive, "models/model.json", change)
    with pytest.raises(UnsafeModelError, match="not among those that are known to be harmless"):
        load_model(archive)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["data__aotinductor__model__x.wrapper.so", "lib__x.so"])
def test_compiled_code_is_refused(archive, name):
    rewrite(archive, lambda _, data: data, **{name: b"\x7fELF"})
    with pytest.raises(UnsafeModelError, match=r"compiled code.*\.so"):
        load_model(archive)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("graph_module"),
        lambda c: c["graph_module"]["graph"].update(nodes=5),
        lambda c: c["graph_module"]["graph"]["nodes"].pop(0),
        lambda c: c["graph_module"]["graph"]["nodes"][0]["inputs"].pop(0),
        lambda c: c["graph_module"]["signature"]["input_specs"].pop(0),
        lambda c: c["graph_module"]["graph"]["nodes"][0].update(inputs=[{"name": 1, "arg": {}}]),
        lambda c: c["graph_module"]["graph"]["outputs"].clear(),
    ],
)
def test_damaged_programs(archive, change):
    rewrite_json(archive, "models/model.json", change)
    with pytest.raises(ModelFileError):
        load_model(archive)


def test_weights_that_reach_beyond_their_file(archive):
    def change(content: Any) -> None:
        content["config"]["conv.weight"]["tensor_meta"]["storage_offset"] = {"as_int": 1 << 40}

    rewrite_json(archive, "data/weights/model_weights_config.json", change)
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(archive)
