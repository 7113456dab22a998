"""ONNX Runtime on the same file, to check the import against."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

_FATAL_ONLY = 4


class OnnxRuntimeReference:
    """Runs the file as it is in ONNX Runtime on the CPU; the session starts on the first call.

    Args:
        path: the ONNX file.
        output: name of the output to return.
        batch: the batch size that the file states; None if any.
        external: whether the file has external data; only then ONNX Runtime opens it by its name,
            which it cannot where that is not UTF-8.
    """

    def __init__(self, path: Path, output: str, batch: int | None, external: bool = False) -> None:
        self._path = path
        self._external = external
        self._output = output
        self._batch = batch

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 ``[B, ...]`` in the file's layout -> raw outputs ``[B, K]``, float32."""
        if self._batch is None:
            return self._run(x)
        parts = [self._run_part(x[i : i + self._batch]) for i in range(0, len(x), self._batch)]
        return np.concatenate(parts)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime  # takes a while to import and is only needed here

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = 1
        # On x86 without VNNI sums of two 8-bit products are cut off at 16 bits otherwise.
        options.add_session_config_entry("session.x64quantprecision", "1")
        source = str(self._path) if self._external else self._path.read_bytes()
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def _run_part(self, x: np.ndarray) -> np.ndarray:
        """A part that may be smaller than the fixed batch: filled up with its last image."""
        missing = (self._batch or len(x)) - len(x)
        filled = np.concatenate([x, np.repeat(x[-1:], missing, 0)]) if missing else x
        return self._run(filled)[: len(x)]

    def _run(self, x: np.ndarray) -> np.ndarray:
        (value,) = self._session.get_inputs()
        dtype = np.float16 if value.type == "tensor(float16)" else np.float32
        (scores,) = self._session.run([self._output], {value.name: x.astype(dtype, copy=False)})
        return scores.reshape(len(x), -1).astype(np.float32, copy=False)
