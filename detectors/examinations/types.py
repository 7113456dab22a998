"""What every examination takes and returns.

An examination looks at a model, at inputs or at training images with a published statistic. It
decides nothing: its result is evidence beside the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from detectors.finding import Finding
from modelaudit.classifier import Classifier
from modelaudit.watch import FeaturesUnavailable


@dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        pixels: ``[n, C, H, W]`` in [0, 1].
        labels: ``[n]``, int64.
        names: of the files, where they are known.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: Tensor) -> Labelled:
        """Those that ``chosen`` ``[n]``, bool, marks."""
        names = tuple(n for n, on in zip(self.names, chosen.tolist(), strict=False) if on)
        return Labelled(self.pixels[chosen], self.labels[chosen], names)


@dataclass(frozen=True)
class ExaminationInput:
    """What an examination may look at.

    Attributes:
        classifier: the suspect model.
        clean: clean images; a pattern may have been searched on them.
        held_out: further clean images, which no search saw; may be empty.
        generator: the one source of randomness, seeded.
        finding: the pattern that a detector found, if one did.
        train: images that the model was trained on, if the user has them.
        suspects: inputs to be judged ``[n, C, H, W]``, if the user has some.
        progress: called with the share of the work done, in [0, 1].
    """

    classifier: Classifier
    clean: Labelled
    held_out: Labelled
    generator: torch.Generator
    finding: Finding | None = None
    train: Labelled | None = None
    suspects: Tensor | None = None
    progress: Callable[[float], None] = lambda share: None

    def some_clean(self, most: int, of_class: int | None = None) -> Labelled:
        """At most ``most`` clean images at random, those of class ``of_class`` before others."""
        labels = torch.cat([self.clean.labels, self.held_out.labels])
        order = torch.randperm(len(labels), generator=self.generator)
        if of_class is not None:
            order = order[(labels[order] != of_class).long().argsort(stable=True)]
        rows, count = order[:most].sort().values, len(self.clean)
        pixels = [self.clean.pixels[rows[rows < count]]]
        pixels.append(self.held_out.pixels[rows[rows >= count] - count])
        return Labelled(torch.cat(pixels), labels[rows])

    def clean_count(self, most: int) -> int:
        """How many images :meth:`some_clean` returns."""
        return min(most, len(self.clean) + len(self.held_out))

    def require_finding(self) -> Finding:
        """The pattern found.

        Raises:
            Skipped: there is none.
        """
        if self.finding is None:
            raise Skipped(
                "it needs a pattern for one target class, and no detector found one that can be "
                "put in images"
            )
        return self.finding

    def victims(self, most: int) -> Labelled:
        """Clean images of the classes that the pattern is for: held-out ones where there are any.

        At most ``most``, at random.

        Raises:
            Skipped: there is no pattern, or there are no such images.
        """
        finding = self.require_finding()
        for images in (self.held_out, self.clean):
            chosen = images.labels != finding.target
            if finding.sources:
                chosen &= torch.isin(images.labels, torch.tensor(finding.sources))
            rows = chosen.nonzero().flatten()
            order = torch.randperm(len(rows), generator=self.generator)[:most]
            if len(rows):
                rows = rows[order].sort().values
                return Labelled(images.pixels[rows], images.labels[rows])
        raise Skipped("there are no clean images of the pattern's source classes")


class Skipped(Exception):
    """The examination cannot be done; the message says why, after ``skipped: ``."""


@dataclass(frozen=True)
class Observation:
    """What an examination saw; see :class:`Examination`."""

    summary: str
    numbers: Mapping[str, Any]
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Examination:
    """The result of an examination.

    Attributes:
        name: registered name.
        status: ``skipped`` where it could not be done, which says nothing about the model.
        reason: why it was skipped; empty when it was done.
        summary: what was seen, a sentence or two for people; empty when it was skipped.
        numbers: plain values by name; see the examination for their meaning.
        pictures: tensors by name; not in reports.
        cannot_see: what it cannot see.
        image_passes: cost; see ``Classifier.image_passes``.
        seconds: wall-clock time.
    """

    name: str
    status: Literal["done", "skipped"]
    reason: str
    summary: str
    numbers: Mapping[str, Any]
    pictures: Mapping[str, Tensor]
    cannot_see: str
    image_passes: float
    seconds: float


class Examiner(Protocol):
    """An examination with its settings applied; :func:`examined` does it."""

    name: ClassVar[str]
    cannot_see: ClassVar[str]

    def cost(self, data: ExaminationInput) -> float:
        """Image-passes that it would take, at most."""
        ...

    def look(self, data: ExaminationInput) -> Observation:
        """Do it.

        Raises:
            Skipped, FeaturesUnavailable: something that it needs is missing.
        """
        ...


def examined(examiner: Examiner, data: ExaminationInput) -> Examination:
    """What the examiner sees, or why it cannot, with the time and the passes that it took."""
    start, passes = time.perf_counter(), data.classifier.image_passes
    reason, seen = "", Observation("", {})
    try:
        seen = examiner.look(data)
    except (Skipped, FeaturesUnavailable) as missing:
        reason = str(missing)
    return Examination(
        name=examiner.name,
        status="skipped" if reason else "done",
        reason=reason,
        summary=seen.summary,
        numbers=seen.numbers,
        pictures=seen.pictures,
        cannot_see=examiner.cannot_see,
        image_passes=data.classifier.image_passes - passes,
        seconds=time.perf_counter() - start,
    )


def skipped(examiner: Examiner, reason: str) -> Examination:
    """The examination that was not done at all."""
    return Examination(examiner.name, "skipped", reason, "", {}, {}, examiner.cannot_see, 0.0, 0.0)


def rounded(values: Tensor | list[float], digits: int = 4) -> list[float]:
    """Numbers for a report."""
    numbers = values.tolist() if isinstance(values, Tensor) else values
    return [round(float(number), digits) for number in numbers]
