"""Operators that are defined by other operators, replaced by their definition.

A model may bring functions of its own, and the specification defines some operators as functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx.inliner

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.control import OPERATORS as CONTROL
from modelaudit.loaders.onnx_graph.registry import canonical_domain, find

_DEEPEST, _MOST_NODES = 16, 1_000_000
_LONGEST_CHAIN = 64
_LAYERS = 4  # functions in functions of the specification: two occur

Identity = tuple[str, str]


def all_nodes(nodes: Sequence[onnx.NodeProto], depth: int = 0) -> Iterator[onnx.NodeProto]:
    """The nodes and those of the graphs inside them.

    Raises:
        ModelFileError: graphs inside graphs, too deep.
    """
    if depth > _DEEPEST:
        raise ModelFileError(
            f"expected graphs inside graphs at most {_DEEPEST} deep, found more; simplify the model"
        )
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from all_nodes(graph.node, depth + 1)


def known(domain: str, operator: str, opset: int) -> bool:
    """Whether the importer runs the operator itself."""
    control = canonical_domain(domain) == "" and operator in CONTROL
    return control or find(domain, operator, opset) is not None


def specified(domain: str, operator: str, opset: int) -> bool:
    """Whether the specification defines the operator by other operators."""
    try:
        schema = onnx.defs.get_schema(operator, opset, canonical_domain(domain))
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own and without operators that only they define.

    Raises:
        ModelFileError: functions that call themselves or expand to too many nodes.
    """
    require_finite(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for _ in range(_LAYERS):
        versions = {canonical_domain(e.domain): e.version for e in model.opset_import}
        wanted = {
            (node.domain, node.op_type)
            for node in all_nodes(model.graph.node)
            if _only_specified(node, versions)
        }
        if not wanted:
            break
        model = _inline_specified(model, wanted)
    return model


def _inline_specified(model: onnx.ModelProto, wanted: set[Identity]) -> onnx.ModelProto:
    """The model with operators replaced by the bodies that the specification gives them.

    Raises:
        ModelFileError: onnx cannot; it needs the types of the operands.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    for node in all_nodes(prepared.graph.node):
        if (node.domain, node.op_type) in wanted:
            _state_defaults(node, model)
    # onnx looks up the type of left-out operands too, whose name is empty.
    left_out = onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, None)
    prepared.graph.value_info.append(left_out)
    try:
        return onnx.inliner.inline_selected_functions(
            prepared, sorted(wanted), inline_schema_functions=True
        )
    except Exception as error:  # the inliner raises RuntimeError for whatever it does not like
        names = ", ".join(sorted(name for _, name in wanted))
        raise ModelFileError(
            f"cannot replace {names} by their definitions: {error}; simplify the model with "
            "onnxsim or export it again with another opset"
        ) from error


def _state_defaults(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    """Write out the attributes that are left out: bodies refer to them."""
    versions = {canonical_domain(e.domain): e.version for e in model.opset_import}
    domain = canonical_domain(node.domain)
    schema = onnx.defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _only_specified(node: onnx.NodeProto, versions: dict[str, int]) -> bool:
    opset = versions.get(canonical_domain(node.domain), 1)
    missing = not known(node.domain, node.op_type, opset)
    return missing and specified(node.domain, node.op_type, opset)


def require_finite(model: onnx.ModelProto) -> None:
    """Check what the model's functions expand to, without expanding them.

    Raises:
        ModelFileError: a function that calls itself, or more than a million nodes.
    """
    bodies = {(canonical_domain(f.domain), f.name): f.node for f in model.functions}
    sizes: dict[Identity, int] = {}
    open_functions: list[Identity] = []

    def size(nodes: Sequence[onnx.NodeProto]) -> int:
        total = 0
        for node in all_nodes(nodes):
            identity = (canonical_domain(node.domain), node.op_type)
            total += _function_size(identity) if identity in bodies else 1
        return total

    def _function_size(identity: Identity) -> int:
        if identity in open_functions or len(open_functions) > _LONGEST_CHAIN:
            raise ModelFileError(
                f"expected functions that end, found '{identity[1]}' calling itself or more than "
                f"{_LONGEST_CHAIN} others in a chain; export the model without functions"
            )
        if identity not in sizes:
            open_functions.append(identity)
            sizes[identity] = size(bodies[identity])
            open_functions.pop()
        return sizes[identity]

    _require_few(size(model.graph.node))


def _require_few(count: int) -> None:
    if count > _MOST_NODES:
        raise ModelFileError(
            f"expected at most {_MOST_NODES} nodes, found {count} after expanding the model's "
            "functions; simplify the model"
        )
