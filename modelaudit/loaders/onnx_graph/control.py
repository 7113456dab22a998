"""Operators that run graphs inside the graph: If, Loop, Scan.

A branch is run in place of its node, a loop is unrolled. Names are unique across a graph and the
graphs in it, so all of them share one table of values; a loop writes its names anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError
from modelaudit.loaders.onnx_graph.node import Node, Subgraph

if TYPE_CHECKING:
    from modelaudit.loaders.onnx_graph.trace import Trace

# Nodes run in all loops of a graph together: some seconds' worth.
_MOST_UNROLLED = 50_000


def _if(trace: Trace, node: Node) -> None:
    condition = trace.know(node.inputs[0])
    branch: Subgraph = node.attributes["then_branch" if condition else "else_branch"]
    _run_body(trace, branch)
    _hand_on(trace, branch.outputs, node.outputs)


def _loop(trace: Trace, node: Node) -> None:
    body: Subgraph = node.attributes["body"]
    count, condition, *initial = [*node.inputs, "", ""][: max(2, len(node.inputs))]
    most = int(trace.know(count)) if count else None
    goes_on = bool(trace.know(condition)) if condition else True
    variables, carried = len(initial), list(initial)
    collected: list[list[str]] = [[] for _ in body.outputs[1 + variables :]]
    step = 0
    while goes_on and (most is None or step < most):
        trace.define(body.inputs[0], torch.tensor(step))
        trace.define(body.inputs[1], torch.tensor(True))
        _hand_on(trace, carried, body.inputs[2:])
        _run_body(trace, body, unrolled=True)
        carried = _keep(trace, body.outputs[1 : 1 + variables], f"{node.outputs[0]}/{step}")
        _collect(trace, body.outputs[1 + variables :], collected, step)
        goes_on = bool(trace.know(body.outputs[0]))
        step += 1
    _hand_on(trace, carried, node.outputs)
    for names, target in zip(collected, node.outputs[variables:], strict=False):
        if target:
            _stack(trace, names, target, 0)


def _scan(trace: Trace, node: Node) -> None:
    if node.opset < 9:
        raise ValueError("Scan before opset 9 is not supported; export with opset 9 or later")
    body: Subgraph = node.attributes["body"]
    given: int = node.attributes["num_scan_inputs"]
    variables = len(node.inputs) - given
    carried, scanned = list(node.inputs[:variables]), node.inputs[variables:]
    axes = node.attributes.get("scan_input_axes", [0] * given)
    backwards = node.attributes.get("scan_input_directions", [0] * given)
    lengths = {_shape(trace, name)[axis] for name, axis in zip(scanned, axes, strict=True)}
    if len(lengths) != 1:
        raise ValueError(f"expected scan inputs of one length, found {sorted(lengths)}")
    (length,) = lengths
    collected: list[list[str]] = [[] for _ in body.outputs[variables:]]
    for step in range(length):
        _hand_on(trace, carried, body.inputs[:variables])
        sources = zip(scanned, body.inputs[variables:], axes, backwards, strict=True)
        for source, target, axis, back in sources:
            index = length - 1 - step if back else step
            select = functools.partial(torch.select, dim=axis, index=index)
            trace.apply(select, [source], target)
        _run_body(trace, body, unrolled=True)
        carried = _keep(trace, body.outputs[:variables], f"{node.outputs[0]}/{step}")
        _collect(trace, body.outputs[variables:], collected, step)
    _hand_on(trace, carried, node.outputs)
    _stack_scanned(trace, node, node.outputs[variables:], collected)


def _stack_scanned(
    trace: Trace, node: Node, targets: Sequence[str], collected: list[list[str]]
) -> None:
    """Stack what the steps of Scan returned, along the axes and in the order that it says."""
    count = len(collected)
    axes = node.attributes.get("scan_output_axes", [0] * count)
    reverse = node.attributes.get("scan_output_directions", [0] * count)
    for names, target, axis, back in zip(collected, targets, axes, reverse, strict=False):
        if target:
            _stack(trace, names[::-1] if back else names, target, axis)


OPERATORS: dict[str, Callable[[Trace, Node], None]] = {"If": _if, "Loop": _loop, "Scan": _scan}


def _run_body(trace: Trace, body: Subgraph, unrolled: bool = False) -> None:
    if unrolled:
        trace.unrolled += len(body.nodes) + len(body.outputs)
        if trace.unrolled > _MOST_UNROLLED:
            raise ModelFileError(
                f"the graph's loops run more than {_MOST_UNROLLED} nodes; export the model with "
                "its loops replaced by whole-tensor operators"
            )
    for name, value in body.constants.items():
        trace.define(name, value)
    for inner in body.nodes:
        trace.run(inner)


def _hand_on(trace: Trace, sources: Sequence[str], targets: Sequence[str]) -> None:
    for source, target in zip(sources, targets, strict=False):
        if target:
            trace.bind(source, target)


def _keep(trace: Trace, names: Sequence[str], prefix: str) -> list[str]:
    """Give values names of their own, which the next step does not write."""
    kept = [f"{prefix}/{name}" for name in names]
    _hand_on(trace, names, kept)
    return kept


def _collect(trace: Trace, names: Sequence[str], collected: list[list[str]], step: int) -> None:
    for name, so_far in zip(names, collected, strict=True):
        so_far += _keep(trace, [name], str(step))


def _stack(trace: Trace, names: list[str], target: str, axis: int) -> None:
    if not names:
        raise ValueError("a loop that makes no step has no result to stack")

    def stack(*values: Tensor) -> Tensor:
        return torch.stack(values, axis)

    trace.apply(stack, names, target)


def _shape(trace: Trace, name: str) -> torch.Size:
    value = trace.values[name]
    if value is None:
        raise ValueError(f"the value '{name}' is missing")
    return value.shape
