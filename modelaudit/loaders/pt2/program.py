"""The JSON of an exported program as a graph that can be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.pt2.archive import Archive
from modelaudit.loaders.pt2.arguments import example_size, fixed_size, read_argument
from modelaudit.loaders.pt2.graph import (
    Graph,
    Node,
    Target,
    references,
    stored_names,
)
from modelaudit.loaders.pt2.operators import is_check, resolve

_LISTED = 5


@dataclass(frozen=True)
class Image:
    """The one input that is not a weight.

    Attributes:
        name: in the graph.
        sizes: its extents, batch first; ``None`` where they are open.
        examples: its extents when the model was exported; ``None`` where the file does not say.
    """

    name: str
    sizes: tuple[int | None, ...]
    examples: tuple[int | None, ...]


@dataclass(frozen=True)
class Program:
    """An exported program.

    Attributes:
        weights: tensors and constants by the graph's names.
        dtype: of the weights in the file; they are widened to float32.
        outputs: number of outputs.
        in_training_mode: whether it was exported in training mode; it runs in eval mode.
    """

    graph: Graph
    image: Image
    weights: Mapping[str, Any]
    dtype: torch.dtype
    outputs: int
    operators: Counter[str]
    in_training_mode: bool


def read_program(archive: Archive) -> Program:
    """Check and translate the graph.

    Raises:
        UnsafeModelError: operators that are not on the list.
        ModelFileError: not a function of one image batch.
        KeyError, TypeError, ValueError, AttributeError, IndexError: damaged.
    """
    module = archive.program["graph_module"]
    json_graph, signature = module["graph"], module["signature"]
    weights, image_name = _bind_inputs(signature["input_specs"], archive)
    floats = {v.dtype for v in weights.values() if isinstance(v, Tensor) and v.is_floating_point()}
    dtype = next(iter(floats)) if len(floats) == 1 else torch.float32
    reader = _Reader(dtype)
    graph = reader.graph(json_graph, {*weights, image_name})
    if reader.refused:
        names = sorted(set(reader.refused))
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise UnsafeModelError(
            f"its operators {', '.join(names[:_LISTED])}{more} are not among those that are known "
            "to be harmless. Export it to ONNX from its source, or report the operator if an "
            "image classifier needs it."
        )
    shown = _user_outputs(signature["output_specs"], graph)
    graph = Graph(graph.inputs, graph.nodes, shown)
    sizes = json_graph["tensor_values"][image_name]["sizes"]
    return Program(
        graph,
        Image(
            image_name,
            tuple(fixed_size(size) for size in sizes),
            tuple(fixed_size(size) or example_size(size) for size in sizes),
        ),
        {name: _widen(value, dtype) for name, value in weights.items()},
        dtype,
        len(shown),
        reader.operators,
        reader.in_training_mode,
    )


def _bind_inputs(
    specs: Sequence[Mapping[str, Any]], archive: Archive
) -> tuple[dict[str, Any], str]:
    """What each input of the graph is: a weight by its name, or the image."""
    bound: dict[str, Any] = {}
    images: list[str] = []
    tensors = {**archive.constants, **archive.weights}
    for spec in specs:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            argument = value["arg"]
            if "as_tensor" in argument:
                images.append(argument["as_tensor"]["name"])
            elif "as_none" not in argument:
                images.append(next(iter(argument)))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            bound[value["arg"]["name"]] = tensors[value[f"{kind}_name"]]
        elif kind == "constant_input":
            bound[value["name"]] = next(iter(value["value"].values()))
        else:
            raise UnsafeModelError(f"it needs a {kind.replace('_', ' ')}, which is not a tensor")
    if len(images) != 1:
        raise ModelFileError(
            f"it takes {len(images)} inputs ({', '.join(images)}); an image classifier takes one "
            "batch of images. Export a module that does."
        )
    return bound, images[0]


def _user_outputs(specs: Sequence[Mapping[str, Any]], graph: Graph) -> tuple[Any, ...]:
    """The outputs that the model returns, without buffers that it updates."""
    kinds = [next(iter(spec)) for spec in specs]
    pairs = zip(kinds, graph.outputs, strict=True)
    return tuple(output for kind, output in pairs if kind in ("user_output", "loss_output"))


def _widen(value: Any, dtype: torch.dtype) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == dtype else value


@dataclass
class _Reader:
    """Translates nodes, and collects what is said about all of them.

    Attributes:
        dtype: of the file's weights, which is replaced by float32.
        refused: operators that are not allowed.
    """

    dtype: torch.dtype
    refused: list[str] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    in_training_mode: bool = False

    def graph(self, graph: Mapping[str, Any], known: set[str]) -> Graph:
        nodes = []
        known = set(known)
        for node in graph["nodes"]:
            if is_check(node["target"]):
                continue
            function = resolve(node["target"])
            if function is None:
                self.refused.append(str(node["target"]).removeprefix("torch.ops.")[:80])
                continue
            nodes.append(self._node(node, function))
            if not self.refused:
                _require_known(nodes[-1].reads(), known)
            known.update(stored_names(nodes[-1].outputs))
        outputs = tuple(self._argument(output) for output in graph["outputs"])
        if not self.refused:  # what those would compute is missing
            _require_known(references(outputs), known)
        inputs = tuple(_name_of(argument) for argument in graph["inputs"])
        single = bool(graph.get("is_single_tensor_return"))
        return Graph(inputs, tuple(nodes), outputs, single)

    def _node(self, node: Mapping[str, Any], function: Callable[..., Any]) -> Node:
        self.operators[node["target"].removeprefix("torch.ops.aten.").partition(".")[0]] += 1
        values = [self._argument(item["arg"]) for item in node["inputs"]]
        outputs = tuple(_target(output) for output in node["outputs"])
        target: Target = outputs[0] if len(outputs) == 1 else outputs or None
        if not isinstance(function, torch._ops.OpOverload):
            # A graph's results are a tuple even if there is one.
            target = outputs if any(isinstance(value, Graph) for value in values) else target
            return Node(function, values, {}, target)
        given = {item["name"]: v for item, v in zip(node["inputs"], values, strict=True)}
        if given.get("train") is True or given.get("training") is True:
            given = self._in_eval_mode(given)
        arguments, keywords = _by_position(function, given)
        return Node(function, arguments, keywords, target)

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        return read_argument(argument, self._float32, self._subgraph)

    def _float32(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32 if dtype == self.dtype else dtype

    def _subgraph(self, graph: Mapping[str, Any]) -> Graph:
        return self.graph(graph, {_name_of(argument) for argument in graph["inputs"]})

    def _in_eval_mode(self, given: dict[str, Any]) -> dict[str, Any]:
        """Dropout off, and batch normalisation with the statistics that the file has."""
        self.in_training_mode = True
        if "running_mean" in given and given["running_mean"] is None:
            return given
        return {**given, **{key: False for key in ("train", "training") if key in given}}


def _by_position(
    overload: torch._ops.OpOverload, given: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments in the order of the operator's schema, as far as they can go by position."""
    names = [argument.name for argument in overload._schema.arguments if not argument.kwarg_only]
    leading = next((i for i, name in enumerate(names) if name not in given), len(names))
    first = names[:leading]
    return [given[n] for n in first], {k: v for k, v in given.items() if k not in first}


def _target(output: Mapping[str, Any]) -> Target:
    ((kind, value),) = output.items()
    if kind == "as_none":
        return None
    if isinstance(value, list):
        return tuple(_target_of_named(part) for part in value)
    return _target_of_named(value)


def _target_of_named(value: Any) -> Target:
    if not isinstance(value, Mapping):  # a number that is known already, and that no one reads
        return None
    if "name" in value:
        return str(value["name"])
    return _target(value) if "as_tensor" in value else str(value.get("as_name") or "") or None


def _name_of(argument: Mapping[str, Any]) -> str:
    ((_, value),) = argument.items()
    return str(value.get("name") or value.get("as_name")) if isinstance(value, Mapping) else ""


def _require_known(names: set[str], known: set[str]) -> None:
    if not names <= known:
        raise ValueError(f"the graph reads {min(names - known)!r} before it is computed")
