"""``onnx.ModelProto`` -> :class:`OnnxGraph`, with constants folded."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from torch import Tensor

import modelaudit.loaders.onnx_graph.operators  # noqa: F401  (fills the operator table)
from modelaudit.errors import ModelFileError, UnsupportedOperatorError
from modelaudit.loaders.onnx_graph.call import MOST_ELEMENTS
from modelaudit.loaders.onnx_graph.convert import to_nodes, to_tensor
from modelaudit.loaders.onnx_graph.fold import fold_into_convolutions
from modelaudit.loaders.onnx_graph.functions import (
    all_nodes,
    inline,
    known,
    require_finite,
    specified,
)
from modelaudit.loaders.onnx_graph.fuse import fuse
from modelaudit.loaders.onnx_graph.graph import Constants, OnnxGraph, prune
from modelaudit.loaders.onnx_graph.node import Node
from modelaudit.loaders.onnx_graph.registry import canonical_domain
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
    model = inline(model)
    require_supported(model)  # what a function consists of
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelFileError("the graph holds sparse tensors; export it with dense weights")
    constants = {proto.name: to_tensor(proto) for proto in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    wanted = list(outputs or [value.name for value in graph.output])
    nodes = prune(to_nodes(graph, opsets(model)), wanted)
    require_order(nodes, {*constants, *inputs}, wanted)
    nodes = fold_constants(nodes, constants)
    nodes = fuse(nodes, constants, wanted)
    nodes = fold_into_convolutions(nodes, constants, wanted)
    used = {name for node in nodes for name in node.reads()}.union(wanted)
    kept = {name: value for name, value in constants.items() if name in used}
    return OnnxGraph(nodes, Constants(kept), inputs, wanted)


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Version of each operator domain that the model imports."""
    return {canonical_domain(entry.domain): entry.version for entry in model.opset_import}


def require_supported(model: onnx.ModelProto) -> None:
    """Check that the table has every operator of the model.

    Raises:
        UnsupportedOperatorError: names each missing operator, its domain, opset and nodes.
    """
    require_finite(model)
    functions = {(canonical_domain(f.domain), f.name) for f in model.functions}
    scopes = [(model.graph.node, opsets(model))]
    scopes += [
        (f.node, {canonical_domain(e.domain): e.version for e in f.opset_import})
        for f in model.functions
    ]
    missing: dict[tuple[str, str, int], list[str]] = {}
    for nodes, versions in scopes:
        for node in all_nodes(nodes):
            domain = canonical_domain(node.domain)
            opset = versions.get(domain, 1)
            operator = (domain, node.op_type, opset)
            if operator[:2] not in functions and not known(*operator) and not specified(*operator):
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


def require_order(nodes: Sequence[Node], given: set[str], outputs: Sequence[str]) -> None:
    """Check that every value is written before it is read.

    Raises:
        ModelFileError: nodes out of order or in a cycle, or values that nothing writes.
    """
    written = set(given)
    for node in nodes:
        for name in node.reads():
            if name not in written:
                raise ModelFileError(
                    f"ONNX node {node} reads '{name}' before anything writes it: the graph is out "
                    "of order, has a cycle or lacks a node; export the model again"
                )
        written.update(node.outputs)
    missing = [name for name in outputs if name not in written]
    if missing:
        raise ModelFileError(f"no node writes the output {missing[0]!r}; export the model again")


def fold_constants(nodes: Sequence[Node], constants: dict[str, Tensor]) -> list[Node]:
    """Run every node that depends on constants only; its results join ``constants``.

    Returns:
        The other nodes.

    Raises:
        ModelFileError: a node fails, or the results are absurdly large together.
    """
    rest, elements = [], 0
    for node in nodes:
        if all(name in constants for name in node.reads()):
            trace = Trace({name: constants[name] for name in node.reads()}, {})
            trace.run(node)
            results = {name: trace.values[name] for name in node.outputs if name}
            elements += sum(x.numel() for x in results.values() if x is not None)
            if elements > MOST_ELEMENTS:
                raise ModelFileError(
                    f"expected constants of at most {MOST_ELEMENTS} elements, found more by ONNX "
                    f"node {node}; simplify the model with onnxsim"
                )
            constants.update(results)  # type: ignore[arg-type]
        else:
            rest.append(node)
    return rest
