"""The operator table, one file per family; importing this package fills it.

Each function is named after the ONNX operator it implements; what the operator means is said once,
in the specification: https://onnx.ai/onnx/operators/.
"""

from modelaudit.loaders.onnx_graph.operators import (
    attention,
    before_opset_7,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantised_layers,
    quantization,
    recurrent,
    reduction,
    resize,
    runtime_quantization,
    shape,
    signal,
    tensor,
    vision,
)

__all__ = [
    "attention",
    "before_opset_7",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantised_layers",
    "quantization",
    "recurrent",
    "reduction",
    "resize",
    "runtime_quantization",
    "shape",
    "signal",
    "tensor",
    "vision",
]
