"""The operator table, one file per family; importing this package fills it.

Each function is named after the ONNX operator it implements; what the operator means is said once,
in the specification: https://onnx.ai/onnx/operators/.
"""

from modelaudit.loaders.onnx_graph.operators import (
    attention,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
    tensor,
)

__all__ = [
    "attention",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "resize",
    "shape",
    "tensor",
]
