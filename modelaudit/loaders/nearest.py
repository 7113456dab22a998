"""Which torchvision architecture weights without a graph are of."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.overrides import TorchFunctionMode

from modelaudit.loaders.architectures import resolve_architecture
from modelaudit.loaders.fit import is_counter, unwrapped

Shape = tuple[int, ...]

_SHOWN = 3
# Below this share two networks have no more in common than layers with usual names.
_SIMILAR = 0.1
_DEFAULT_CLASSES = 1000


@dataclass(frozen=True)
class Candidate:
    """An architecture that weights may be of.

    Attributes:
        similarity: tensors with the same name and shape, as a share of all in either, in [0, 1];
            the layers whose shape depends on the number of classes are left out.
    """

    arch: str
    similarity: float


class _WithoutMemory(TorchFunctionMode):
    """Parameters are made without memory, and not initialised.

    ``torch.device("meta")`` would do the same for all tensors, but RegNet computes its widths with
    some, and it takes a second to pretend to draw a large network's random numbers.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if args and isinstance(args[0], Tensor) and args[0].is_meta and _in_place(func):
            return args[0]
        return func(*args, **(kwargs or {}))


def nearest(weights: Mapping[str, Tensor]) -> list[Candidate]:
    """The most similar torchvision architectures, at most three, the best first."""
    stages = [_shapes(stage) for stage in unwrapped(weights)]
    found = [
        Candidate(arch, max(_similarity(_torchvision_shapes(arch), stage) for stage in stages))
        for family in _families()
        # Building all 80 takes seconds; names of tensors are alike within a family.
        if any(_share(_torchvision_shapes(family[0]).keys(), s.keys()) > _SIMILAR for s in stages)
        for arch in family
    ]
    found.sort(key=lambda candidate: -candidate.similarity)
    return [candidate for candidate in found[:_SHOWN] if candidate.similarity >= _SIMILAR]


def advice(weights: Mapping[str, Tensor]) -> str:
    """One sentence on which ``--arch`` to give."""
    found = nearest(weights)
    exact = [candidate.arch for candidate in found if candidate.similarity == 1]
    if len(exact) == 1:
        return f"These weights fit --arch {exact[0]} exactly; give it."
    if not found:
        return (
            "No torchvision architecture is similar; give --arch package.module:factory for your "
            "own code, or export the model to ONNX."
        )
    shown = ", ".join(f"{c.arch} ({c.similarity:.0%} of the tensors)" for c in found)
    return f"Nearest torchvision architectures: {shown}."


def _similarity(shapes: Mapping[str, Shape], weights: Mapping[str, Shape]) -> float:
    head = {key for key, shape in shapes.items() if shape[:1] == (_DEFAULT_CLASSES,)}
    if not head <= weights.keys():
        head = set()
    return _share(
        {item for item in shapes.items() if item[0] not in head},
        {item for item in weights.items() if item[0] not in head},
    )


def _share(some: Set[Any], others: Set[Any]) -> float:
    """What is in both, as a share of what is in either."""
    return len(some & others) / max(len(some | others), 1)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in tensors.items() if not is_counter(key)}


def _families() -> list[list[str]]:
    """torchvision's classification models, those of one source file together."""
    families: dict[str, list[str]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        source = torchvision.models.get_model_builder(name).__module__
        families.setdefault(source, []).append(name)
    return list(families.values())


@functools.cache
def _torchvision_shapes(name: str) -> dict[str, Shape]:
    """Names and shapes of a model's tensors; it is never given memory."""
    with _WithoutMemory():
        return _shapes(resolve_architecture(name).build(_DEFAULT_CLASSES).state_dict())


def _in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")
