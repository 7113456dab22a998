"""The known preprocessings, and the user's own from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from modelaudit.classifier import Preprocessing
from modelaudit.errors import UsageError
from modelaudit.loaders.types import Layout

_CAFFE = (103.939 / 255, 116.779 / 255, 123.68 / 255)  # Keras' "caffe" mode, in B, G, R order

# In order of simplicity; the first of equally good ones is taken.
_ANY = (
    Preprocessing("as-is"),
    Preprocessing("half", mean=(0.5,), std=(0.5,)),
    Preprocessing("0-255", input_range="0-255"),
)
_GREY = (
    Preprocessing("as-is"),
    Preprocessing("mnist", mean=(0.1307,), std=(0.3081,)),
    Preprocessing("fashion-mnist", mean=(0.2860,), std=(0.3530,)),
    *_ANY[1:],
)
_COLOUR = (
    Preprocessing("as-is"),
    Preprocessing("imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Preprocessing("cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    *_ANY[1:],
    Preprocessing("bgr", channel_order="BGR"),
    Preprocessing("bgr-0-255", channel_order="BGR", input_range="0-255"),
    Preprocessing("caffe", mean=_CAFFE, channel_order="BGR", input_range="0-255"),
)
_BY_CHANNELS = {1: _GREY, 3: _COLOUR}


def preprocessing_names(channels: int | None = None) -> tuple[str, ...]:
    """Values of ``--preprocess NAME``: those that fit ``channels``, or all."""
    tables = (_COLOUR, _GREY) if channels is None else (_BY_CHANNELS.get(channels, _ANY),)
    return tuple(dict.fromkeys(candidate.name for table in tables for candidate in table))


def candidates(channels: int, layout: Layout | None) -> tuple[Preprocessing, ...]:
    """What ``auto`` tries for ``channels`` channels, simplest first.

    Args:
        channels: C.
        layout: as the model file states it; where it is unknown (``None``) all NCHW candidates
            come first and the same with NHWC, marked in the name, follow.
    """
    table = _BY_CHANNELS.get(channels, _ANY)
    if layout is not None:
        return tuple(replace(candidate, layout=layout) for candidate in table)
    return table + tuple(replace(c, name=f"{c.name} NHWC", layout="NHWC") for c in table)


def explicit_preprocessing(
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    input_range: str | None = None,
    layout: str | None = None,
    name: str | None = None,
    channels: int | None = None,
) -> Preprocessing:
    """The preprocessing that the user asked for.

    Args:
        mean: ``--mean``: one number or one per channel, in [0, 1] units, ``0.485,0.456,0.406``.
        std: ``--std``: likewise, above 0.
        input_range: ``--input-range``: ``0-1`` (default) or ``0-255``, applied after mean and std.
        layout: ``--layout``: ``NCHW`` (default) or ``NHWC``.
        name: ``--preprocess NAME``, one of ``preprocessing_names()``; only ``layout`` goes with it.
        channels: C, where it is known, to check the lengths.

    Raises:
        UsageError: an unknown name or value, a wrong length, or options that exclude each other.
    """
    chosen_layout = _layout(layout)
    if name is not None:
        clash = [
            option
            for option, value in (("--mean", mean), ("--std", std), ("--input-range", input_range))
            if value is not None
        ]
        if clash:
            raise UsageError(
                f"--preprocess {name} already fixes mean, std and range; drop it or {clash[0]}."
            )
        return replace(_named(name, channels), layout=chosen_layout)
    return Preprocessing(
        name="explicit",
        mean=_numbers(mean, "--mean", 0.0, channels),
        std=_numbers(std, "--std", 1.0, channels),
        input_range=_input_range(input_range),
        layout=chosen_layout,
    )


def _named(name: str, channels: int | None) -> Preprocessing:
    fitting = preprocessing_names(channels)
    if name not in fitting:
        close = difflib.get_close_matches(name, fitting, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        images = "" if channels is None else f" for {channels}-channel images"
        raise UsageError(
            f"There is no preprocessing {name!r}{images}{hint}; choose auto or one of "
            f"{', '.join(fitting)}."
        )
    tables = (_COLOUR, _GREY) if channels is None else (_BY_CHANNELS.get(channels, _ANY),)
    return next(candidate for table in tables for candidate in table if candidate.name == name)


def _numbers(
    value: str | Sequence[float] | None, option: str, default: float, channels: int | None
) -> tuple[float, ...]:
    """Validated per-channel numbers; ``default`` is also the lower (mean) or upper (std) limit."""
    if value is None:
        return (default,)
    try:
        parts = value.split(",") if isinstance(value, str) else value
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{option} takes numbers separated by commas, such as 0.485,0.456,0.406; got {value!r}."
        ) from error
    allowed_lengths = (1, channels) if channels is not None else (1, 3, 4)
    if len(numbers) not in allowed_lengths:
        expected = " or ".join(str(length) for length in dict.fromkeys(allowed_lengths))
        raise UsageError(f"{option} takes {expected} numbers; got {len(numbers)}: {value!r}.")
    for number in numbers:
        positive = number > 0 if option == "--std" else number >= 0
        if not (positive and number <= 1):
            limits = "above 0 and at most 1" if option == "--std" else "from 0 to 1"
            raise UsageError(
                f"{option} must be {limits} (pixels are in [0, 1]; divide values for 0-255 pixels "
                f"by 255); got {number:g}."
            )
    return numbers


def _layout(value: str | None) -> Layout:
    if value in (None, "NCHW"):
        return "NCHW"
    if value == "NHWC":
        return "NHWC"
    raise UsageError(f"--layout is NCHW or NHWC; got {value!r}.")


def _input_range(value: str | None) -> Literal["0-1", "0-255"]:
    if value in (None, "0-1"):
        return "0-1"
    if value == "0-255":
        return "0-255"
    raise UsageError(f"--input-range is 0-1 or 0-255; got {value!r}.")
