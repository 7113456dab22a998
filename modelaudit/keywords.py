"""The options of a scan as keywords of a Python function; nothing here imports torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

from modelaudit.errors import UsageError
from modelaudit.options import Preset, ScanOptions
from modelaudit.plain import from_plain, to_plain
from modelaudit.preprocess_options import PreprocessOptions


class ScanKeywords(TypedDict, total=False):
    """Options of a scan: those of ``modelaudit scan``, under the same names and defaults.

    Attributes:
        labels: file with the class names in output order.
        arch, num_classes: for weights without a graph; see :class:`modelaudit.loaders.LoadOptions`.
        preprocess: name of a preprocessing, or ``auto``.
        mean, std: per channel, in [0, 1] units: 1 number or C.
        input_range: ``0-1`` or ``0-255``.
        layout: ``NCHW`` or ``NHWC``.
        channel_order: ``RGB`` or ``BGR``.
        image_size: N or ``(H, W)`` in pixels, where the model does not state it.
        images_per_class: N, clean images per class.
        detectors: names; none means those of ``preset``.
        preset: ``default``, ``fast`` or ``thorough``.
        settings: detector -> setting -> value, e.g. ``{"l-red": {"pi": 0.9}}``.
        alpha: the largest acceptable probability of refusing a clean model, in (0, 1).
        accuracy_floor: clean accuracy in [0, 1] below which the verdict is inconclusive.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of every random choice.
        examine: names of examinations, or ``all``.
        suspect_dir, train_dir: folders of images to examine.
        time_budget: seconds after which what is left is left out.
    """

    labels: str | Path | None
    arch: str | None
    num_classes: int | None
    preprocess: str
    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_range: str | None
    layout: str | None
    channel_order: str | None
    image_size: int | tuple[int, int] | None
    images_per_class: int
    detectors: Sequence[str]
    preset: Preset
    settings: Mapping[str, Mapping[str, object]]
    alpha: float
    accuracy_floor: float
    device: str
    seed: int
    examine: Sequence[str]
    suspect_dir: str | Path | None
    train_dir: str | Path | None
    time_budget: int | None


#: Those that say how pixels become the model's input.
_PREPROCESSING = ("mean", "std", "input_range", "layout", "channel_order")


def options_of(model: Path, clean_dir: Path, keywords: Mapping[str, Any]) -> ScanOptions:
    """The options, every one of the type that it must have.

    Args:
        keywords: as in :class:`ScanKeywords`.

    Raises:
        UsageError: an unknown keyword, or a value that does not fit.
    """
    given = dict(keywords)
    for key in given:
        _require_known(key)
    how = PreprocessOptions.parse(
        given.pop("preprocess", None), **{key: given.pop(key, None) for key in _PREPROCESSING}
    )
    if isinstance(given.get("image_size"), int):
        given["image_size"] = (given["image_size"],) * 2
    if "settings" in given:
        given["settings"] = _texts(given["settings"])
    try:
        plain = {field.name: to_plain(value) for field, value in _defaults(model, clean_dir)}
        plain |= {key: to_plain(value) for key, value in given.items()}
        return from_plain(ScanOptions, {**plain, "preprocessing": to_plain(how)})
    except (TypeError, ValueError) as error:
        raise UsageError(f"An option does not fit: {error}.") from error


def _defaults(model: Path, clean_dir: Path) -> list[tuple[Any, Any]]:
    options = ScanOptions(model, clean_dir)
    return [(field, getattr(options, field.name)) for field in fields(options)]


def _texts(settings: Any) -> dict[str, dict[str, str]]:
    """Settings as they stand on a command line.

    Raises:
        UsageError: not of the form detector -> setting -> value.
    """
    if not isinstance(settings, Mapping) or not all(
        isinstance(values, Mapping) for values in settings.values()
    ):
        raise UsageError(
            "settings is detector -> setting -> value, e.g. {'l-red': {'pi': 0.9}}; found "
            f"{settings!r}."
        )
    return {
        str(detector): {str(key): str(value) for key, value in values.items()}
        for detector, values in settings.items()
    }


def _require_known(key: str) -> None:
    known = ScanKeywords.__annotations__
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}."
        raise UsageError(f"There is no option {key!r}; {hint}")
