"""A differentiable torch module built from an ONNX graph.

:func:`~modelaudit.loaders.onnx_graph.build.build_graph` turns an ``onnx.ModelProto`` with any
number of inputs and outputs into an :class:`~modelaudit.loaders.onnx_graph.graph.OnnxGraph`.
"""

from modelaudit.loaders.onnx_graph.build import build_graph
from modelaudit.loaders.onnx_graph.graph import OnnxGraph

__all__ = ["OnnxGraph", "build_graph"]
