"""What the metadata of ONNX files say about classes and input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from modelaudit.loaders.onnx_metadata import read_metadata
from modelaudit.loaders.types import StatedFacts
from tests.loaders.onnx_files import classifier, load

NAMES = ("cat", "dog", "fish")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "{0: 'cat', 1: 'dog', 2: 'fish'}"),  # Ultralytics
        ("names", "{1: 'dog', 0: 'cat', 2: 'fish'}"),
        ("id2label", '{"0": "cat", "1": "dog", "2": "fish"}'),
        ("labels", '["cat", "dog", "fish"]'),
        ("classes", "('cat', 'dog', 'fish')"),
        ("CLASSES", "cat,dog, fish"),
        ("class_names", "cat\ndog\r\nfish\n"),
    ],
)
def test_labels(key: str, value: str) -> None:
    assert read_metadata({key: value}) == (StatedFacts("ONNX metadata", labels=NAMES), ())


def test_the_stronger_spelling_wins_and_a_malformed_one_does_not() -> None:
    facts, notes = read_metadata({"classes": "a,b", "names": "{0: 'cat'", "labels": "cat,dog,fish"})
    assert facts.labels == NAMES
    (note,) = notes
    assert "'names' is ignored" in note


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"mean": "[0.485, 0.456, 0.406]", "std": "0.229,0.224,0.225"},
         {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
        ({"mean": "127.5", "std": "127.5"}, {"mean": (0.5,), "std": (0.5,)}),
        ({"mean": "0 0 0", "std": "255 255 255"}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"mean": "51,102,153", "std": "1,1,1"},
         {"mean": (0.2, 0.4, 0.6), "std": (1.0,), "input_range": "0-255"}),
        ({"mean": "51,102,153"},
         {"mean": (0.2, 0.4, 0.6), "std": (1.0,), "input_range": "0-255"}),
        ({"std": "51"}, {"mean": (0.0,), "std": (0.2,)}),
        ({"std": "0.5"}, {"std": (0.5,)}),
        ({"Image.BitmapPixelFormat": "Bgr8"}, {"channel_order": "BGR"}),
        ({"image.bitmappixelformat": "RGB8"}, {"channel_order": "RGB"}),
        ({"Image.BitmapPixelFormat": "Gray8"}, {}),
        ({"Image.NominalPixelRange": "NominalRange_0_255"},
         {"mean": (0.0,), "std": (1.0,), "input_range": "0-255"}),
        ({"Image.NominalPixelRange": "Normalized_0_1"},
         {"mean": (0.0,), "std": (1.0,), "input_range": "0-1"}),
        ({"Image.NominalPixelRange": "Normalized_1_1"},
         {"mean": (0.5,), "std": (0.5,), "input_range": "0-1"}),
        ({"Image.NominalPixelRange": "NominalRange_0_255", "mean": "0.5", "std": "0.5"},
         {"mean": (0.5,), "std": (0.5,)}),
        ({"imgsz": "[224, 256]"}, {"image_size": (224, 256)}),
        ({"imgsz": "224"}, {"image_size": (224, 224)}),
        ({"input_size": "32x48"}, {"image_size": (32, 48)}),
        ({"producer": "me", "date": "today"}, {}),
    ],
)  # fmt: skip
def test_input(properties: dict[str, str], expected: dict[str, Any]) -> None:
    facts, notes = read_metadata(properties)
    assert notes == ()
    for key in ("mean", "std"):
        if key in expected:
            assert getattr(facts, key) == pytest.approx(expected.pop(key))
        else:
            assert getattr(facts, key) is None
    for key in ("labels", "input_range", "channel_order", "layout", "image_size"):
        assert getattr(facts, key) == expected.get(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", "10"),
        ("classes", ""),
        ("names", "{0: 'cat', 2: 'dog'}"),
        ("names", "{'cat': 0, 'dog': 1}"),
        ("names", "[1, 2]"),
        ("names", "[__import__('os').getcwd(), 'a']"),
        ("names", "{0: 'cat', 1: 'dog'"),
        ("id2label", "[" * 100_000),
        ("id2label", "{" * 100_000),
        ("names", "[" + "-" * 200_000 + "1]"),
        ("names", "[" + "1+" * 100_000 + "1]"),
        ("names", "[" + "a." * 100_000 + "a]"),
        ("names", "[" + "~" * 2**18 + "]"),
        ("names", "a," * 2**20),
        ("names", '{"' + "9" * 5000 + '": "a", "1": "b"}'),
        ("mean", "a,b,c"),
        ("mean", ""),
        ("std", "1,2,3,4,5"),
        ("imgsz", "[1, 2, 3]"),
        ("imgsz", "-1"),
        ("imgsz", "9" * 100_000),
        ("Image.NominalPixelRange", "NominalRange_16_235"),
        ("Image.BitmapPixelFormat", "Bgra8"),
    ],
)
def test_what_is_malformed_is_ignored_with_a_note(key: str, value: str) -> None:
    facts, notes = read_metadata({key: value})
    assert facts == StatedFacts("ONNX metadata")
    (note,) = notes
    assert f"{key!r} is ignored" in note
    assert len(note) < 250
    assert note.isprintable()


def test_units_that_cannot_be_told_are_ignored() -> None:
    for numbers in ({"mean": "0.5", "std": "58"}, {"mean": "123", "std": "0.229"}):
        facts, notes = read_metadata(numbers)
        assert facts == StatedFacts("ONNX metadata")
        assert "not of the same units" in notes[0]


def test_a_file_states_them(tmp_path: Path) -> None:
    proto = classifier()
    helper.set_model_props(proto, {"names": "a,b,c,d,e", "imgsz": "x"})
    loaded = load(proto, tmp_path)
    assert [facts.labels for facts in loaded.stated] == [("a", "b", "c", "d", "e")]
    assert any("'imgsz' is ignored" in note for note in loaded.notes)
    assert load(classifier(), tmp_path).stated[0] == StatedFacts("ONNX metadata")
