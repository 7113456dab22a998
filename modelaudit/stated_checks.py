"""Which of the values that a model's files state can be used at all."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelaudit.loaders.types import StatedFacts

_LENGTHS = (1, 3, 4)
_LARGEST_SIDE = 8192


@dataclass(frozen=True)
class Fixed:
    """What a model's graph fixes; what it leaves open is ``None``.

    Attributes:
        num_classes: number of outputs K.
        channels: C of the input.
        size: ``(H, W)`` of the input.
    """

    num_classes: int | None = None
    channels: int | None = None
    size: tuple[int | None, int | None] = (None, None)


def usable(facts: StatedFacts, fixed: Fixed) -> tuple[StatedFacts, list[str]]:
    """Without the values that are malformed or contradict the graph, and a note on each."""
    if facts.labels and all(re.fullmatch(r"LABEL_\d+", name) for name in facts.labels):
        facts = replace(facts, labels=None)  # what transformers writes where nobody names classes
    notes = []
    if problem := label_problem(facts.labels, fixed):
        notes.append(f"The labels of {facts.source} are ignored: {problem}.")
        facts = replace(facts, labels=None)
    mean, std = _number_problem(facts.mean, fixed), _number_problem(facts.std, fixed, positive=True)
    if problem := mean or std:  # one without the other would be another arithmetic
        notes.append(f"The mean and std of {facts.source} are ignored: {problem}.")
        facts = replace(facts, mean=None, std=None)
    if problem := image_size_problem(facts.image_size, fixed):
        notes.append(f"The image size of {facts.source} is ignored: {problem}.")
        facts = replace(facts, image_size=None)
    return facts, notes


def label_problem(labels: Sequence[str] | None, fixed: Fixed) -> str | None:
    """Why these cannot be the names of the outputs."""
    if labels is None:
        return None
    if not labels or not all(name and name.isprintable() for name in labels):
        return "a name is missing or holds control characters"
    if fixed.num_classes is not None and len(labels) != fixed.num_classes:
        return f"{len(labels)} names for {fixed.num_classes} outputs"
    return None


def image_size_problem(size: tuple[int, int] | None, fixed: Fixed) -> str | None:
    """Why images cannot be given this size."""
    if size is None:
        return None
    if len(size) != 2 or not all(0 < extent <= _LARGEST_SIDE for extent in size):
        return f"{_by(size)} is not (height, width) in pixels up to {_LARGEST_SIDE}"
    if any(own not in (None, wish) for own, wish in zip(fixed.size, size, strict=True)):
        fitting = [own or wish for own, wish in zip(fixed.size, size, strict=True)]
        return (
            f"{_by(size)} contradicts the model file, whose input is {_by(fixed.size)} (height x "
            f"width); leave it out or give {_by(fitting)}"
        )
    return None


def _number_problem(
    numbers: tuple[float, ...] | None, fixed: Fixed, positive: bool = False
) -> str | None:
    if numbers is None:
        return None
    if len(numbers) not in (_LENGTHS if fixed.channels is None else (1, fixed.channels)):
        channels = "" if fixed.channels is None else f" for {fixed.channels} channels"
        return f"{len(numbers)} numbers{channels}"
    if not all(math.isfinite(number) for number in numbers) or (positive and min(numbers) <= 0):
        return f"not all of {numbers} are {'above 0' if positive else 'finite'}"
    return None


def _by(extents: Sequence[int | None]) -> str:
    return "x".join("any" if extent is None else str(extent) for extent in extents)
