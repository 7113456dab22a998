"""The known preprocessings, and the user's own from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from modelaudit.classifier import Preprocessing
from modelaudit.errors import UsageError
from modelaudit.loaders.types import Layout

InputRange = Literal["0-1", "0-255"]

_LENGTHS = (1, 3, 4)  # numbers of channels that images can have
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


@dataclass(frozen=True)
class PreprocessOptions:
    """What the user says about the preprocessing; every field is optional.

    Kept as given until the model's channels and layout are known; see :func:`resolve`.

    Attributes:
        name: one of ``preprocessing_names()``, which fixes mean, std and range; ``None`` otherwise.
        mean: 1 number or one per channel, each from 0 to 1.
        std: likewise, above 0 and at most 1.
        input_range: applied after mean and std.
        layout: of the model's input; ``None`` takes the file's own.

    Raises:
        UsageError: an unknown name, a number out of range, or options that exclude each other.
    """

    name: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: InputRange | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        _check_limits(self.mean, "--mean")
        _check_limits(self.std, "--std")
        if self.name is None:
            return
        _named(self.name, None)
        for option, value in (
            ("--mean", self.mean),
            ("--std", self.std),
            ("--input-range", self.input_range),
        ):
            if value is not None:
                raise UsageError(
                    f"--preprocess {self.name} already fixes mean, std and range; drop it or "
                    f"{option}."
                )

    @property
    def is_auto(self) -> bool:
        """Whether the usual preprocessings are tried; a layout alone only narrows them down."""
        return self == PreprocessOptions(layout=self.layout)

    @classmethod
    def parse(
        cls,
        name: str | None = None,
        mean: str | Sequence[float] | None = None,
        std: str | Sequence[float] | None = None,
        input_range: str | None = None,
        layout: str | None = None,
    ) -> PreprocessOptions:
        """The options as texts, or as they stand in a manifest.

        Args:
            name: ``--preprocess``; ``auto`` is the same as ``None``.
            mean: ``--mean``, in [0, 1] units: ``0.485,0.456,0.406`` or numbers.
            std: ``--std``, likewise.
            input_range: ``--input-range``: ``0-1`` or ``0-255``.
            layout: ``--layout``: ``NCHW`` or ``NHWC``.

        Raises:
            UsageError: an unknown name or value, or options that exclude each other.
        """
        return cls(
            name=None if name == "auto" else name,
            mean=_numbers(mean, "--mean"),
            std=_numbers(std, "--std"),
            input_range=_input_range(input_range),
            layout=_layout(layout),
        )


def resolve(
    options: PreprocessOptions, channels: int, layout: Layout | None
) -> tuple[Preprocessing, ...]:
    """The preprocessings to try for a model.

    Args:
        options: the user's.
        channels: C of the model's input.
        layout: as the model file states it, ``None`` if unknown; the user's own goes first.

    Returns:
        Those of ``auto``, simplest first; or the single one that the user gave, as NCHW where
        nobody states a layout.

    Raises:
        UsageError: the name or the number of means or deviations does not fit the channels.
    """
    layout = options.layout or layout
    if options.is_auto:
        return candidates(channels, layout)
    if options.name is not None:
        return (replace(_named(options.name, channels), layout=layout or "NCHW"),)
    for option, numbers in (("--mean", options.mean), ("--std", options.std)):
        if numbers is not None and len(numbers) not in (1, channels):
            expected = "1 number" if channels == 1 else f"1 or {channels} numbers"
            raise UsageError(
                f"{option} takes {expected} for a model with {_channels(channels)}, found "
                f"{len(numbers)}. Give one number per channel, or one for all."
            )
    given = Preprocessing(
        name="explicit",
        mean=options.mean or (0.0,),
        std=options.std or (1.0,),
        input_range=options.input_range or "0-1",
        layout=layout or "NCHW",
    )
    return (given,)


def _channels(count: int) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"


def _named(name: str, channels: int | None) -> Preprocessing:
    """The known preprocessing ``name``, for ``channels`` channels where they are known."""
    fitting = preprocessing_names(channels)
    if name not in fitting:
        close = difflib.get_close_matches(str(name), fitting, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        model = "" if channels is None else f" for a model with {_channels(channels)}"
        raise UsageError(
            f"There is no preprocessing {name!r}{model}{hint}; choose auto or one of "
            f"{', '.join(fitting)}."
        )
    tables = (_COLOUR, _GREY) if channels is None else (_BY_CHANNELS.get(channels, _ANY),)
    return next(candidate for table in tables for candidate in table if candidate.name == name)


def _numbers(value: str | Sequence[float] | None, option: str) -> tuple[float, ...] | None:
    """The numbers in a text, or the numbers themselves."""
    if value is None:
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{option} takes numbers separated by commas, such as 0.485,0.456,0.406; got {value!r}."
        ) from error


def _check_limits(numbers: tuple[float, ...] | None, option: str) -> None:
    """Is this a number of channels that images can have, and is every number in range?"""
    if numbers is None:
        return
    if len(numbers) not in _LENGTHS:
        expected = f"{', '.join(map(str, _LENGTHS[:-1]))} or {_LENGTHS[-1]}"
        raise UsageError(f"{option} takes {expected} numbers; found {len(numbers)}: {numbers}.")
    for number in numbers:
        positive = number > 0 if option == "--std" else number >= 0
        if not (positive and number <= 1):
            limits = "above 0 and at most 1" if option == "--std" else "from 0 to 1"
            raise UsageError(
                f"{option} must be {limits} (pixels are in [0, 1]; divide values for 0-255 pixels "
                f"by 255); got {number:g}."
            )


def _layout(value: str | None) -> Layout | None:
    if value in (None, "NCHW", "NHWC"):
        return cast("Layout | None", value)
    raise UsageError(f"--layout is NCHW or NHWC; got {value!r}.")


def _input_range(value: str | None) -> InputRange | None:
    if value in (None, "0-1", "0-255"):
        return cast("InputRange | None", value)
    raise UsageError(f"--input-range is 0-1 or 0-255; got {value!r}.")
