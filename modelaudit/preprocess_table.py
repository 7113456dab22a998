"""The usual preprocessings, by name and by number of channels."""

from __future__ import annotations

import difflib
from dataclasses import replace

from modelaudit.errors import UsageError
from modelaudit.loaders.types import Layout, StatedFacts
from modelaudit.preprocessing import Preprocessing

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


def table(channels: int | None = None) -> tuple[Preprocessing, ...]:
    """The usual preprocessings for ``channels`` channels as NCHW, simplest first, or all."""
    if channels is not None:
        return _BY_CHANNELS.get(channels, _ANY)
    return tuple({known.name: known for known in (*_COLOUR, *_GREY)}.values())


def preprocessing_names(channels: int | None = None) -> tuple[str, ...]:
    """Values of ``--preprocess NAME``: those that fit ``channels``, or all."""
    return tuple(known.name for known in table(channels))


def named(name: str, channels: int | None = None, place: str | None = None) -> Preprocessing:
    """The known preprocessing ``name``; it must fit ``channels`` where they are given.

    Args:
        name: as in ``preprocessing_names()``.
        channels: C of the model's input.
        place: the file that says it, for messages.

    Raises:
        UsageError: there is none of that name.
    """
    fitting = preprocessing_names(channels)
    if name not in fitting:
        close = difflib.get_close_matches(str(name), fitting, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        model = "" if channels is None else f" for a model with {count_channels(channels)}"
        raise UsageError(
            f"{f'{place}: ' if place else ''}There is no preprocessing {name!r}{model}{hint}; "
            f"choose auto or one of {', '.join(fitting)}."
        )
    return next(known for known in table(channels) if known.name == name)


def candidates(channels: int, layout: Layout | None) -> tuple[Preprocessing, ...]:
    """What ``auto`` tries for ``channels`` channels, simplest first.

    Args:
        channels: C.
        layout: of the model's input; where it is unknown (``None``) all NCHW candidates come first
            and the same with NHWC, marked in the name, follow.
    """
    return _in_layouts(table(channels), layout)


def narrowed(stated: StatedFacts, channels: int) -> tuple[Preprocessing, ...]:
    """What is left to try when some of it is stated, simplest first.

    A stated mean, deviation or range settles the arithmetic: what it leaves open has its default
    (mean 0, deviation 1, range 0-1, RGB). A stated channel order alone leaves the usual
    preprocessings of that order; a layout alone leaves all of them.

    Args:
        stated: whose mean and deviation have 1 or ``channels`` numbers.
        channels: C of the model's input.
    """
    if stated.mean is None and stated.std is None and stated.input_range is None:
        order = stated.channel_order if channels > 1 else None  # grey has no order
        usual = tuple(k for k in table(channels) if order in (None, k.channel_order))
        if usual:
            return _in_layouts(usual, stated.layout)
    settled = Preprocessing(
        name="explicit",
        mean=stated.mean or (0.0,),
        std=stated.std or (1.0,),
        input_range=stated.input_range or "0-1",
        channel_order=stated.channel_order or "RGB",
    )
    same = (
        known
        for known in table(channels)
        if _arithmetic(known, channels) == _arithmetic(settled, channels)
    )
    return _in_layouts((next(same, settled),), stated.layout)


def count_channels(count: int) -> str:
    """``1 channel``, ``3 channels``."""
    return f"{count} channel{'' if count == 1 else 's'}"


def _in_layouts(
    options: tuple[Preprocessing, ...], layout: Layout | None
) -> tuple[Preprocessing, ...]:
    if layout is not None:
        return tuple(replace(option, layout=layout) for option in options)
    return options + tuple(replace(o, name=f"{o.name} NHWC", layout="NHWC") for o in options)


def _arithmetic(one: Preprocessing, channels: int) -> tuple[object, ...]:
    """What it does to the pixels, with a number for every channel."""
    mean, std = (n * channels if len(n) == 1 else n for n in (one.mean, one.std))
    return mean, std, one.input_range, one.channel_order
