"""Plain values: what goes out comes back equal, and nothing else comes in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from modelaudit.plain import from_plain, harmless, printable, to_plain


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Outer:
    path: Path
    share: float
    inner: tuple[Inner, ...]
    by_name: Mapping[str, Mapping[str, str]]
    colour: Colour
    layout: Literal["NCHW", "NHWC"]
    flag: bool = False
    anything: Any = None


VALUE = Outer(
    Path("a/\udcff"), 0.5, (Inner((1, 2)), Inner(None)), {"x": {"y": "z"}}, Colour.RED, "NCHW"
)


def test_there_and_back() -> None:
    assert from_plain(Outer, json.loads(json.dumps(to_plain(VALUE)))) == VALUE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", 3),
        ("share", "0.5"),
        ("share", True),
        ("inner", {"size": None}),
        ("inner", [{"size": [1]}]),
        ("inner", [{"size": [1, "2"]}]),
        ("inner", [{}]),
        ("by_name", {"x": 3}),
        ("colour", "blue"),
        ("layout", ["NCHW"]),
        ("flag", 0),
        ("flag", None),
        ("extra", 1),
    ],
)
def test_other_forms_are_refused(key: str, value: object) -> None:
    plain = {**to_plain(VALUE), key: value}
    with pytest.raises(ValueError, match="Outer"):
        from_plain(Outer, plain)


def test_only_plain_types_go_out() -> None:
    with pytest.raises(TypeError, match="object has no plain form"):
        to_plain({"x": object()})


def test_text_of_a_stranger_does_not_steer_a_terminal() -> None:
    assert printable("Kätzchen \u3000 \x1b[2J\r\n\x9b \u202e\ud800") == (
        "Kätzchen \u3000 \\x1b[2J\\r\\n\\x9b \\u202e\\ud800"
    )
    assert printable("a\nb\r", lines=True) == "a\nb\\r"
    assert harmless({"a\n": ["\x1b", 1, 0.5, True, None]}) == {
        "a\\n": ["\\x1b", 1, 0.5, True, None]
    }


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", str(2**64)])
def test_odd_numbers_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="number"):
        harmless(json.loads(f'[{{"x": {number}}}]'))
