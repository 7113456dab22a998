"""``onnx.ModelProto`` -> :class:`OnnxGraph`, with constants folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx
import onnx.inliner
from torch import Tensor

import modelaudit.loaders.onnx_graph.operators  # noqa: F401  (fills the operator table)
from modelaudit.errors import ModelFileError, UnsupportedOperatorError
from modelaudit.loaders.onnx_graph.convert import to_nodes, to_tensor
from modelaudit.loaders.onnx_graph.graph import Constants, OnnxGraph, prune
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.registry import canonical_domain, find
from modelaudit.loaders.onnx_graph.trace import Trace

_LISTED_NODES = 3


def build_graph(model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> OnnxGraph:
    """Import a graph.

    Args:
        model: checked by ``onnx.checker``; external data loaded.
        outputs: names of the outputs to compute; all by default.

    Raises:
        UnsupportedOperatorError: operators that the table does not have; lists all of them.
        ModelFileError: a tensor type that torch does not have, or a constant node that fails.
    """
    require_supported(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelFileError("the graph holds sparse tensors; export it with dense weights")
    constants = {proto.name: to_tensor(proto) for proto in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    wanted = list(outputs or [value.name for value in graph.output])
    nodes = fold_constants(prune(to_nodes(graph, opsets(model)), wanted), constants)
    nodes = fold_batch_normalization(nodes, constants, wanted)
    used = {name for node in nodes for name in node.reads()}.union(wanted)
    kept = {name: value for name, value in constants.items() if name in used}
    return OnnxGraph(nodes, Constants(kept), inputs, wanted)


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Version of each operator domain that the model imports."""
    return {canonical_domain(entry.domain): entry.version for entry in model.opset_import}


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the branches inside it."""
    yield from _nodes_and_branches(graph.node)


def _nodes_and_branches(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes_and_branches(attribute.g.node)


def require_supported(model: onnx.ModelProto) -> None:
    """Check that the table has every operator of the model.

    Raises:
        UnsupportedOperatorError: names each missing operator, its domain, opset and nodes.
    """
    functions = {(canonical_domain(f.domain), f.name) for f in model.functions}
    scopes = [(model.graph.node, opsets(model))]
    scopes += [
        (f.node, {canonical_domain(e.domain): e.version for e in f.opset_import})
        for f in model.functions
    ]
    missing: dict[tuple[str, str, int], list[str]] = {}
    for nodes, versions in scopes:
        for node in _nodes_and_branches(nodes):
            domain = canonical_domain(node.domain)
            opset = versions.get(domain, 1)
            known = (domain, node.op_type) in functions or (domain == "" and node.op_type == "If")
            if not known and find(domain, node.op_type, opset) is None:
                label = node.name or "writing " + ", ".join(node.output)
                missing.setdefault((node.op_type, domain or "ai.onnx", opset), []).append(label)
    if missing:
        raise UnsupportedOperatorError(_describe(missing))


def _describe(missing: dict[tuple[str, str, int], list[str]]) -> str:
    parts = []
    for (operator, domain, opset), names in missing.items():
        more = f" and {len(names) - _LISTED_NODES} more" if len(names) > _LISTED_NODES else ""
        listed = ", ".join(names[:_LISTED_NODES]) + more
        parts.append(f"{operator} (domain {domain}, opset {opset}; node {listed})")
    return (
        f"the graph uses operators that the importer does not implement: {'; '.join(parts)}; "
        "simplify the model with onnxsim or export it again with another opset, or report the "
        "operator"
    )


def fold_constants(nodes: Sequence[Node], constants: dict[str, Tensor]) -> list[Node]:
    """Run every node that depends on constants only; its results join ``constants``.

    Returns:
        The other nodes.
    """
    rest = []
    for node in nodes:
        if all(name in constants for name in node.reads()):
            trace = Trace({name: constants[name] for name in node.reads()}, {})
            trace.run(node)
            constants.update(
                {name: trace.values[name] for name in node.outputs if name}  # type: ignore[misc]
            )
        else:
            rest.append(node)
    return rest


def fold_batch_normalization(
    nodes: Sequence[Node], constants: dict[str, Tensor], outputs: Sequence[str]
) -> list[Node]:
    """Scale the weights of each convolution whose only reader is a batch normalization.

    Convolution and inference-mode batch normalization are both linear in the input, so this is
    exact up to rounding; the new weights are computed in float64.
    """
    readers = Counter(outputs)
    readers.update(name for node in nodes for name in node.reads())
    writers = {name: index for index, node in enumerate(nodes) for name in node.outputs}
    result: list[Node | None] = list(nodes)
    for index, node in enumerate(nodes):
        source = writers.get(node.inputs[0]) if node.inputs else None
        if source is None or node.operator != "BatchNormalization" or len(node.outputs) > 1:
            continue
        conv = nodes[source]
        known = all(name in constants for name in (*conv.inputs[1:], *node.inputs[1:]))
        single = readers[node.inputs[0]] == 1 and conv.operator == "Conv"
        if single and known and not node.attributes.get("training_mode", 0):
            result[source] = None
            result[index] = _merge(conv, node, constants)
    return [node for node in result if node is not None]


def _merge(conv: Node, norm: Node, constants: dict[str, Tensor]) -> Node:
    """The convolution that does what ``conv`` followed by ``norm`` does."""
    weight = constants[conv.inputs[1]]
    bias = constants[conv.inputs[2]].double() if len(conv.inputs) > 2 else 0.0
    scale, shift, mean, var = (constants[name].double() for name in norm.inputs[1:])
    factor = scale / (var + norm.attributes.get("epsilon", 1e-5)).sqrt()
    output = norm.outputs[0]
    names = (f"{output}/weight", f"{output}/bias")
    columns = factor.reshape(-1, *(1 for _ in weight.shape[1:]))
    constants[names[0]] = (weight.double() * columns).to(weight.dtype)
    constants[names[1]] = ((bias - mean) * factor + shift).to(weight.dtype)
    inputs = (conv.inputs[0], *names)
    return Node("Conv", "", conv.name, inputs, (output,), conv.attributes, conv.opset)
