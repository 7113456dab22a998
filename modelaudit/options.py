"""The options of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelaudit.errors import UsageError
from modelaudit.preprocess_options import PreprocessOptions

#: Sets of detectors: what runs by default, two cheap ones, all of them.
Preset = Literal["default", "fast", "thorough"]


@dataclass(frozen=True)
class ScanOptions:
    """What to scan and how; the command line's options under the same names.

    Attributes:
        model: path of the suspect model.
        clean_dir: folder with one folder of clean images per class.
        labels: file with the class names in output order.
        arch, num_classes: for weights without a graph; see :class:`LoadOptions`.
        preprocessing: what the user says about it; nothing tries the usual ones.
        image_size: ``(H, W)`` in pixels, where the model file does not state it.
        images_per_class: N, clean images per class.
        detectors: registered names; empty means those of ``preset``.
        preset: see :func:`detectors.registry.preset_names`.
        settings: detector -> setting -> value as text.
        alpha: the largest acceptable probability of refusing a clean model, in (0, 1).
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of every random choice.
        accuracy_floor: clean accuracy below which the verdict is ``inconclusive``.
        examine: names of examinations to do, or ``all``; see :mod:`modelaudit.examine`.
        suspect_dir: folder with inputs to examine.
        train_dir: folder with one folder of training images per class, to examine.
        time_budget: seconds after which what is left is left out; ``None`` for any number.
    """

    model: Path
    clean_dir: Path
    labels: Path | None = None
    arch: str | None = None
    num_classes: int | None = None
    preprocessing: PreprocessOptions = field(default_factory=PreprocessOptions)
    image_size: tuple[int, int] | None = None
    images_per_class: int = 8
    detectors: tuple[str, ...] = ()
    preset: Preset = "default"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    alpha: float = 0.05
    device: str = "auto"
    seed: int = 0
    accuracy_floor: float = 0.5
    examine: tuple[str, ...] = ()
    suspect_dir: Path | None = None
    train_dir: Path | None = None
    time_budget: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha must lie between 0 and 1, not {self.alpha}.")
        if self.images_per_class < 1:
            raise UsageError(f"At least 1 image per class is needed, not {self.images_per_class}.")
        if self.time_budget is not None and self.time_budget < 1:
            raise UsageError(f"The time budget is at least 1 second, not {self.time_budget}.")

    def describe(self) -> dict[str, Any]:
        """The options as plain values, for the report."""
        from detectors import registry  # brings torch, which the options alone do not need

        return {
            "detectors": list(self.detectors or registry.preset_names(self.preset)),
            "preset": self.preset,
            "settings": {name: dict(values) for name, values in self.settings.items()},
            "alpha": self.alpha,
            "images_per_class": self.images_per_class,
            "accuracy_floor": self.accuracy_floor,
            "labels": str(self.labels) if self.labels else None,
            "arch": self.arch,
            "num_classes": self.num_classes,
            "image_size": list(self.image_size) if self.image_size else None,
            "examine": list(self.examine),
            "suspect_dir": str(self.suspect_dir) if self.suspect_dir else None,
            "train_dir": str(self.train_dir) if self.train_dir else None,
            "time_budget": self.time_budget,
        }
