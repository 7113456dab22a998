"""Telling files apart by their content, and what is said about those that are not read."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from modelaudit.errors import ModelFileError
from modelaudit.loaders import load_model, sha256_of


def zipped(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "{}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.h5", b"\x89HDF\r\n\x1a\n....", r"tf2onnx\.convert --keras .*m\.h5 --output m\.onnx"),
        ("m.h5", b"text", r"tf2onnx\.convert --keras"),
        ("m.h5", b"text", r"load_model\('.*m\.h5', compile=False\).*export\('m\.onnx'"),
        ("m.keras", zipped("config.json", "model.weights.h5"), r"--keras .*m\.keras"),
        ("m.tflite", b"\x1c\x00\x00\x00TFL3....", r"tf2onnx\.convert --tflite .*m\.tflite"),
        ("saved_model.pb", b"\x0a\x01\x12\x00", r"tf2onnx\.convert --saved-model"),
        ("frozen.pb", b"\x0a\x01\x12\x00", "--graphdef with --inputs and --outputs"),
        ("m.msgpack", b"\x82\xa6params", "JAX/Flax checkpoint.*jax2onnx"),
        ("m.mlmodel", b"\x08\x07\x12\x00", "Core ML model.*Export ONNX"),
        ("m.engine", b"ftrt\x00\x00", "TensorRT engine.*ONNX file that it was built from"),
        ("m.plan", b"\x01\x02\x03\x04", "TensorRT engine"),
        ("m.xml", b'<?xml version="1.0"?>\n<net name="x">', "OpenVINO model.*ONNX"),
        ("m.gguf", b"GGUF\x03\x00", "GGUF file"),
        ("m.npz", zipped("a.npy"), "NumPy archive.*safetensors"),
        ("m.joblib", b"\x78\x9c....", "scikit-learn.*skl2onnx"),
        ("m.pkl", b"\x80\x04\x95garbage", "skl2onnx"),
        ("m.pte", b"\x00\x00\x00\x00ET12", r"ExecuTorch program.*\.pt2"),
        ("m.ort", b"\x00\x00\x00\x00ORTM", r"\.onnx file that it was made from"),
        ("m.pdmodel", b"\x0a\x01", "paddle2onnx"),
        ("m.tar.gz", b"\x1f\x8b\x08\x00", "Unpack it"),
        ("m.mar", zipped("MAR-INF/MANIFEST.json"), "TorchServe archive.*Unpack"),
        ("m.pt2", b"text", "not a known model file by its content"),
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
    with pytest.raises(ModelFileError, match=said) as caught:
        load_model(path)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(ModelFileError, match="There is no model file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match=r"is a directory without a config\.json"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ModelFileError, match=r"tf2onnx\.convert --saved-model"):
        load_model(tmp_path)
    (tmp_path / "m.mlpackage").mkdir()
    with pytest.raises(ModelFileError, match="Core ML"):
        load_model(tmp_path / "m.mlpackage")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(ModelFileError, match="Cannot read"):
        sha256_of(tmp_path / "none")


def test_sha256_of_a_folder(tmp_path):
    content = {"config.json": '{"model_type": "vit"}', "model.safetensors": "weights"}
    for name, text in content.items():
        Path(tmp_path / name).write_text(text)
    lines = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in content.items()
    )
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert sha256_of(tmp_path) == expected
    assert sha256_of(tmp_path / "config.json") == expected
    (tmp_path / "README.md").write_text("not a part of the model")
    assert sha256_of(tmp_path) == expected
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert sha256_of(tmp_path) != expected
    assert sha256_of(tmp_path / "model.safetensors") == hashlib.sha256(b"weights").hexdigest()
