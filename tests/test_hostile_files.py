"""Files made to do harm: exit code 2, a report that names the stage, and nothing happens."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from modelaudit import __main__
from modelaudit.report import schema
from tests.conftest import BUNDLED

LIMITS = ("--limit", "stall=20", "--limit", "memory=1500M", "--limit", "cpu-time=120")


class Payload:
    """Unpickling it touches a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


class Saves(nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.target)
        return x.flatten(1)[:, :10]


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        secret = torch.from_file("/etc/passwd", False, 10, dtype=torch.uint8)
        return x.flatten(1)[:, :10] + secret


class Hangs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() < 1e9):
            x = x * 1.0
        return x.flatten(1)[:, :10]


class Hoards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] + torch.ones([10, 1_000_000_000]).sum()


def script(module: nn.Module, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.jit.save(torch.jit.script(module), path)
    return path


def raw_pickle(folder: Path, canary: Path) -> Path:
    path = folder / "model.pt"
    path.write_bytes(pickle.dumps(Payload(canary)))
    return path


def saved_object(folder: Path, canary: Path) -> Path:
    path = folder / "model.pth"
    torch.save({"state_dict": Payload(canary)}, path)
    return path


def old_saved_object(folder: Path, canary: Path) -> Path:
    path = folder / "model.pth"
    torch.save({"state_dict": Payload(canary)}, path, _use_new_zipfile_serialization=False)
    return path


def poisoned_script(folder: Path, canary: Path) -> Path:
    """A TorchScript archive whose pickled parts hold a payload."""
    source, path = io.BytesIO((BUNDLED / "global.pt").read_bytes()), folder / "model.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith(("data.pkl", "constants.pkl")):
                content = pickle.dumps(Payload(canary), protocol=2)
            new.writestr(member.filename, content)
    return path


def saving_script(folder: Path, canary: Path) -> Path:
    return script(Saves(str(canary)), folder)


def reading_script(folder: Path, canary: Path) -> Path:
    return script(Reads(), folder)


def hanging_script(folder: Path, canary: Path) -> Path:
    return script(Hangs(), folder)


def hoarding_script(folder: Path, canary: Path) -> Path:
    return script(Hoards(), folder)


def graph(folder: Path, nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> Path:
    """An ONNX classifier of 28x28 images from ``images`` to ``scores``."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 28, 28])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", None])
    made = helper.make_graph(nodes, "g", [images], [scores], list(constants))
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(made).SerializeToString())
    return path


def traversing_data(folder: Path, canary: Path) -> Path:
    (folder.parent / "secret").write_bytes(bytes(4 * 7840))
    weights = onnx.numpy_helper.from_array(np.zeros((784, 10), np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret")
    flat = helper.make_node("Flatten", ["images"], ["flat"])
    return graph(folder, [flat, helper.make_node("MatMul", ["flat", "w"], ["scores"])], weights)


def cyclic_graph(folder: Path, canary: Path) -> Path:
    return graph(
        folder,
        [
            helper.make_node("Add", ["flat", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Identity", ["b"], ["scores"]),
        ],
    )


def enormous_constant(folder: Path, canary: Path) -> Path:
    shape = onnx.numpy_helper.from_array(np.array([10**6, 10**6]), "shape")
    return graph(
        folder,
        [
            helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["top"], keepdims=0),
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Add", ["flat", "top"], ["scores"]),
        ],
        shape,
    )


def boastful_constant(folder: Path, canary: Path) -> Path:
    """A tensor of a billion elements that the file does not hold."""
    weights = TensorProto(name="w", dims=[10**9, 10], data_type=TensorProto.FLOAT, raw_data=b"1234")
    flat = helper.make_node("Flatten", ["images"], ["flat"])
    return graph(folder, [flat, helper.make_node("MatMul", ["flat", "w"], ["scores"])], weights)


def zip_bomb(folder: Path, canary: Path) -> Path:
    path = folder / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/code/__torch__.py", b"#" * 2**30)
        archive.writestr("m/data.pkl", b"\x80\x02).")
    return path


def huge_header(folder: Path, canary: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b'{"a":' * 1000)
    return path


def deep_header(folder: Path, canary: Path) -> Path:
    path = folder / "model.safetensors"
    header = b'{"a":' * 50_000 + b"0" + b"}" * 50_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


CORPUS = [
    *(raw_pickle, saved_object, old_saved_object, poisoned_script, saving_script, reading_script),
    *(hanging_script, hoarding_script, traversing_data, cyclic_graph, enormous_constant),
    *(boastful_constant, zip_bomb, huge_header, deep_header),
]


def scan(model: Path, images: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> dict:  # type: ignore[type-arg]
    """Scan, expect the error exit without a traceback; the report of the failure."""
    output = folder / "report.json"
    arguments = ["scan", model, "--clean-dir", images, "--output", output, *LIMITS]
    arguments += ["--arch", "resnet18"] if model.suffix in (".pth", ".safetensors") else []
    assert __main__.run(list(map(str, arguments))) == 2
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    assert "internal error" not in printed.err
    report: dict[str, dict[str, str]] = json.loads(output.read_text())
    jsonschema.validate(report, schema())
    return report


@pytest.mark.parametrize("build", CORPUS, ids=lambda build: build.__name__)
def test_a_hostile_model_is_an_error_and_nothing_more(
    build: Callable[[Path, Path], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, canary = tmp_path / "models", tmp_path / "canary"
    folder.mkdir()
    report = scan(build(folder, canary), BUNDLED / "images", tmp_path, capfd)
    assert report["verdict"] == "error"
    assert report["error"]["stage"] != "starting"
    assert not canary.exists()


def test_an_image_bomb_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A PNG of a few kilobytes that claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    for label in range(10):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        (tmp_path / "images" / str(label) / "0.png").write_bytes(png)
    report = scan(BUNDLED / "clean.onnx", tmp_path / "images", tmp_path, capfd)
    assert report["error"]["kind"] == "ImagesError"
