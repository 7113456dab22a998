"""What a person says about the preprocessing, on the command line or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from modelaudit.errors import UsageError
from modelaudit.loaders.types import Layout, StatedFacts
from modelaudit.preprocess_table import count_channels, named

InputRange = Literal["0-1", "0-255"]
ChannelOrder = Literal["RGB", "BGR"]

_LENGTHS = (1, 3, 4)  # numbers of channels that images can have


@dataclass(frozen=True)
class PreprocessOptions:
    """What a person says about the preprocessing; every field is optional.

    Kept as given until the model's channels are known; see :meth:`check_channels`.

    Attributes:
        name: one of ``preprocessing_names()``, which fixes mean, std, range and channel order;
            ``None`` otherwise.
        mean: 1 number or one per channel, each from 0 to 1.
        std: likewise, above 0 and at most 1.
        input_range: applied after mean and std.
        layout: of the model's input.
        channel_order: of the model's input.
        place: the file that says it, for messages; ``None``: the command line.

    Raises:
        UsageError: an unknown name, a number out of range, or options that exclude each other.
    """

    name: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: InputRange | None = None
    layout: Layout | None = None
    channel_order: ChannelOrder | None = None
    place: str | None = None

    def __post_init__(self) -> None:
        _check_limits(self.mean, self._spelled("mean"))
        _check_limits(self.std, self._spelled("std"), positive=True)
        if self.name is None:
            return
        named(self.name, place=self.place)
        for key in ("mean", "std", "input_range", "channel_order"):
            if getattr(self, key) is not None:
                raise UsageError(
                    f"{self._spelled('name')} {self.name} already fixes mean, std, range and "
                    f"channel order; drop it or {self._spelled(key)}."
                )

    @classmethod
    def parse(
        cls,
        name: str | None = None,
        mean: str | Sequence[float] | None = None,
        std: str | Sequence[float] | None = None,
        input_range: str | None = None,
        layout: str | None = None,
        channel_order: str | None = None,
        place: str | None = None,
    ) -> PreprocessOptions:
        """The options as texts, or as they stand in a file.

        Args:
            name: ``--preprocess``; ``auto`` is the same as ``None``.
            mean: ``--mean``, in [0, 1] units: ``0.485,0.456,0.406`` or numbers.
            std: ``--std``, likewise.
            input_range: ``--input-range``: ``0-1`` or ``0-255``.
            layout: ``--layout``: ``NCHW`` or ``NHWC``.
            channel_order: ``--channel-order``: ``RGB`` or ``BGR``.
            place: the file that says it, for messages.

        Raises:
            UsageError: an unknown name or value, or options that exclude each other.
        """

        def one_of(key: str, value: str | None, choices: tuple[str, str]) -> str | None:
            if value is None or value in choices:
                return value
            raise UsageError(f"{_spelled(key, place)} is {' or '.join(choices)}; got {value!r}.")

        return cls(
            name=None if name == "auto" else name,
            mean=_numbers(mean, _spelled("mean", place)),
            std=_numbers(std, _spelled("std", place)),
            input_range=cast(
                "InputRange | None", one_of("input_range", input_range, ("0-1", "0-255"))
            ),
            layout=cast("Layout | None", one_of("layout", layout, ("NCHW", "NHWC"))),
            channel_order=cast(
                "ChannelOrder | None", one_of("channel_order", channel_order, ("RGB", "BGR"))
            ),
            place=place,
        )

    def facts(self, source: str) -> StatedFacts:
        """The same as numbers, whatever the number of channels, for the resolver."""
        values = self if self.name is None else named(self.name)
        return StatedFacts(
            source,
            mean=values.mean,
            std=values.std,
            input_range=values.input_range,
            channel_order=values.channel_order,
            layout=self.layout,
        )

    def check_channels(self, channels: int) -> None:
        """Does this fit a model with ``channels`` channels?

        Raises:
            UsageError: the name or the number of means or deviations does not.
        """
        if self.name is not None:
            named(self.name, channels, self.place)
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, channels):
                expected = "1 number" if channels == 1 else f"1 or {channels} numbers"
                raise UsageError(
                    f"{self._spelled(key)} takes {expected} for a model with "
                    f"{count_channels(channels)}, found {len(numbers)}. Give one number per "
                    "channel, or one for all."
                )

    def _spelled(self, key: str) -> str:
        return _spelled(key, self.place)


def _spelled(key: str, place: str | None) -> str:
    """How a person writes the value: as an option, or as a key of the file ``place``."""
    if place is not None:
        return f"{place}: preprocessing.{key}"
    return "--preprocess" if key == "name" else f"--{key.replace('_', '-')}"


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


def _check_limits(numbers: tuple[float, ...] | None, option: str, positive: bool = False) -> None:
    """Is this a number of channels that images can have, and is every number in range?"""
    if numbers is None:
        return
    if len(numbers) not in _LENGTHS:
        expected = f"{', '.join(map(str, _LENGTHS[:-1]))} or {_LENGTHS[-1]}"
        raise UsageError(f"{option} takes {expected} numbers; found {len(numbers)}: {numbers}.")
    for number in numbers:
        if not (number > 0 or (number == 0 and not positive)) or number > 1:
            limits = "above 0 and at most 1" if positive else "from 0 to 1"
            raise UsageError(
                f"{option} must be {limits} (pixels are in [0, 1]; divide values for 0-255 pixels "
                f"by 255); got {number:g}."
            )
