"""Which place is believed, and what is noted."""

from __future__ import annotations

from typing import Any

import pytest

from modelaudit.errors import ImagesError, UsageError
from modelaudit.loaders.types import StatedFacts
from modelaudit.stated import Places, sources_of, stated_places
from modelaudit.stated_checks import Fixed

LINE = StatedFacts("the command line", layout="NHWC")
TOML = StatedFacts("modelaudit.toml", labels=("a", "b"), mean=(0.5,), layout="NCHW")
FILE = StatedFacts(
    "preprocessor_config.json",
    labels=("x", "y"),
    mean=(0.485, 0.456, 0.406),
    std=(0.25,),
    image_size=(32, 48),
)
TIMM = StatedFacts("timm config", std=(0.25, 0.25, 0.2504), channel_order="BGR")


def test_every_value_comes_from_the_first_place_that_states_it() -> None:
    resolution = Places((LINE, TOML), (FILE, TIMM)).resolve(3)
    facts = resolution.facts
    assert (facts.layout, facts.labels, facts.mean) == ("NHWC", ("a", "b"), (0.5,))
    assert (facts.std, facts.image_size, facts.channel_order) == ((0.25,), (32, 48), "BGR")
    assert facts.input_range is None
    assert resolution.sources == {
        "layout": "the command line",
        "labels": "modelaudit.toml",
        "mean": "modelaudit.toml",
        "std": "preprocessor_config.json",
        "image_size": "preprocessor_config.json",
        "channel_order": "timm config",
    }


def test_contradictions_are_noted_and_rounding_is_none() -> None:
    assert Places((LINE, TOML), (FILE, TIMM)).resolve(3).notes == (
        "The command line overrides layout of modelaudit.toml.",
        "modelaudit.toml overrides labels and mean of preprocessor_config.json.",
    )


def test_sources_name_what_the_clean_images_settle() -> None:
    nothing = sources_of(Places().resolve())
    assert nothing["labels"] == "the class folders"
    assert nothing["image_size"] == "the clean images"
    assert nothing["mean"] == nothing["channel_order"] == nothing["layout"] == "clean accuracy"
    assert stated_places(nothing) == ()
    mean_only = sources_of(Places((StatedFacts("modelaudit.toml", mean=(0.5,)),)).resolve())
    assert (mean_only["mean"], mean_only["std"]) == ("modelaudit.toml", "default")
    assert mean_only["layout"] == "clean accuracy"
    assert stated_places(mean_only) == ("modelaudit.toml",)
    order_only = sources_of(Places((), (TIMM, StatedFacts("x"))).resolve())
    assert stated_places(order_only) == ("timm config",)
    assert stated_places({**nothing, "channel_order": "timm config"}) == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": ("a", "b", "c")}, "labels of f are ignored: 3 names for 2 outputs"),
        ({"labels": ("a", "")}, "labels of f are ignored: a name is missing"),
        ({"labels": ("a", "\x1b[2J")}, "control characters"),
        ({"labels": ()}, "a name is missing"),
        ({"mean": (0.5, 0.5)}, "mean and std of f are ignored: 2 numbers for 3 channels"),
        ({"mean": (float("nan"),)}, "finite"),
        ({"std": (0.5, 0.0, 0.5)}, "above 0"),
        ({"mean": (0.5,), "std": (float("inf"),)}, "mean and std of f are ignored"),
        ({"image_size": (64, 64)}, "image size of f is ignored: 64x64 contradicts"),
        ({"image_size": (10**9, 32)}, "up to 8192"),
        ({"image_size": (0, 32)}, "0x32 is not"),
    ],
)
def test_a_files_value_that_cannot_be_used_is_ignored_with_a_note(
    values: dict[str, Any], said: str
) -> None:
    weaker = StatedFacts("weaker", labels=("x", "y"), mean=(0.1,), std=(0.2,), image_size=(32, 32))
    fixed = Fixed(2, 3, (32, None))
    resolution = Places((), (StatedFacts("f", **values), weaker), fixed).resolve()
    (note,) = resolution.notes
    assert said in note
    assert "f" not in resolution.sources.values()
    for key in values:
        assert getattr(resolution.facts, key) == getattr(weaker, key)


def test_names_that_transformers_makes_up_are_none() -> None:
    made_up = StatedFacts("config.json", labels=("LABEL_0", "LABEL_1"))
    resolution = Places((), (made_up,)).resolve()
    assert resolution.facts.labels is None
    assert resolution.notes == ()


def test_a_persons_value_that_contradicts_the_graph_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"labels of modelaudit.toml do not fit: 2 names for 3"):
        Places((TOML,), (), Fixed(num_classes=3)).resolve()
    own = StatedFacts("modelaudit.toml", image_size=(8, 8))
    with pytest.raises(ImagesError, match=r"8x8 contradicts the model file, .* 4x4"):
        Places((own,), (), Fixed(size=(4, 4))).resolve()
