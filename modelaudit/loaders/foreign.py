"""Model files of other tools: not read, but each with the command that converts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from modelaudit.errors import ModelFileError

_TO_ONNX = "Convert it to ONNX"


def foreign_content(path: Path, head: bytes) -> ModelFileError | None:
    """The error for a file whose first bytes are those of another tool's format."""
    for offset, magic, error in _BY_CONTENT:
        if head[offset:].startswith(magic):
            return error(path)
    if head.lstrip().startswith(b"<") and b"<net" in head:
        return _openvino(path)
    # Its protobuf starts like ONNX's, so here the name counts more than the content.
    return _core_ml(path) if path.suffix.lower() == ".mlmodel" else None


def foreign_name(path: Path) -> ModelFileError | None:
    """The error for a file or folder whose name is that of another tool's format."""
    error = _BY_SUFFIX.get(path.suffix.lower())
    return error(path) if error else None


def keras(path: Path) -> ModelFileError:
    """The error for a Keras model."""
    return ModelFileError(
        f"{path} is a Keras model, which is not read directly. "
        f"{_tf2onnx('--keras', path)} (or, where that cannot load it, in Python: model = "
        f"keras.models.load_model({str(path)!r}, compile=False); "
        "model(keras.ops.zeros((1, *model.input_shape[1:]))); "
        f"model.export({path.with_suffix('.onnx').name!r}, format='onnx'))"
    )


def saved_model(path: Path) -> ModelFileError:
    """The error for a TensorFlow SavedModel folder."""
    return _unread(path, "a TensorFlow SavedModel", _tf2onnx("--saved-model", path))


def _unread(path: Path, what: str, advice: str) -> ModelFileError:
    return ModelFileError(f"{path} is {what}, which is not read directly. {advice}")


def _tf2onnx(flag: str, source: Path) -> str:
    target = source.with_suffix(".onnx").name
    return (
        "Convert it with: pip install tf2onnx && "
        f"python -m tf2onnx.convert {flag} {source} --output {target}"
    )


def _tflite(path: Path) -> ModelFileError:
    return _unread(path, "a TensorFlow Lite model", _tf2onnx("--tflite", path))


def _frozen_graph(path: Path) -> ModelFileError:
    return _unread(
        path,
        "a TensorFlow graph",
        f"For a SavedModel: {_tf2onnx('--saved-model', path.absolute().parent)} . For a frozen "
        "graph use --graphdef with --inputs and --outputs instead of --saved-model.",
    )


def _lfs(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is a Git LFS pointer, not the model itself. Fetch it with: git lfs pull"
    )


def _simple(what: str, advice: str) -> Callable[[Path], ModelFileError]:
    return lambda path: _unread(path, what, advice)


_core_ml = _simple("a Core ML model", "Export ONNX from the model that it was converted from.")
_openvino = _simple(
    "an OpenVINO model",
    "Give the ONNX file that it was converted from, or export ONNX from its source.",
)
_tensorrt = _simple(
    "a TensorRT engine (compiled code for one GPU)",
    "Give the ONNX file that it was built from.",
)
_flax = _simple(
    "a JAX/Flax checkpoint",
    f"{_TO_ONNX} with jax2onnx, or give the same model's PyTorch weights (model.safetensors).",
)
_gguf = _simple(
    "a GGUF file",
    "It holds quantised weights without an image classifier's graph; give the model's original "
    "Hugging Face folder or ONNX export.",
)
_sklearn = _simple(
    "a scikit-learn model, a pickle that would run code",
    f"{_TO_ONNX} with skl2onnx where you trust it.",
)
_numpy = _simple(
    "a NumPy archive",
    "It holds arrays without a graph; build the model from them and save it with "
    "torch.onnx.export, or save the arrays as safetensors and give --arch.",
)
_executorch = _simple("an ExecuTorch program", "Give the .pt2 file that it was lowered from.")
_ort = _simple("an ONNX Runtime (.ort) file", "Give the .onnx file that it was made from.")
_paddle = _simple(
    "a Paddle model",
    f"{_TO_ONNX} with: pip install paddle2onnx && paddle2onnx --model_dir DIR --save_file "
    "model.onnx",
)
_caffe = _simple("a Caffe model", f"{_TO_ONNX}.")
_packed = _simple("a compressed archive", "Unpack it and give the model file inside.")
_archived = _simple("a TorchServe archive", "Unpack it (it is a zip) and give the model inside.")

_BY_CONTENT: tuple[tuple[int, bytes, Callable[[Path], ModelFileError]], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", keras),
    (4, b"TFL3", _tflite),
    (4, b"ET12", _executorch),
    (4, b"ORTM", _ort),
    (0, b"GGUF", _gguf),
    (0, b"ftrt", _tensorrt),
    (0, b"ptrt", _tensorrt),
    (0, b"version https://git-lfs", _lfs),
    (0, b"\x1f\x8b", _packed),
    (0, b"7z\xbc\xaf", _packed),
    (0, b"\xfd7zXZ", _packed),
    (0, b"\x28\xb5\x2f\xfd", _packed),
)

_BY_SUFFIX: Mapping[str, Callable[[Path], ModelFileError]] = {
    **dict.fromkeys((".h5", ".hdf5", ".keras"), keras),
    ".tflite": _tflite,
    ".pb": _frozen_graph,
    **dict.fromkeys((".mlmodel", ".mlpackage", ".mlmodelc"), _core_ml),
    **dict.fromkeys((".engine", ".plan", ".trt"), _tensorrt),
    **dict.fromkeys((".msgpack", ".orbax"), _flax),
    **dict.fromkeys((".joblib", ".skops"), _sklearn),
    **dict.fromkeys((".npz", ".npy"), _numpy),
    **dict.fromkeys((".pdmodel", ".pdiparams"), _paddle),
    **dict.fromkeys((".caffemodel", ".prototxt"), _caffe),
    **dict.fromkeys((".tar", ".gz", ".tgz", ".xz", ".7z", ".zst"), _packed),
    ".gguf": _gguf,
    ".pte": _executorch,
    ".ort": _ort,
    ".mar": _archived,
}
