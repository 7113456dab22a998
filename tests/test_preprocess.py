"""Preprocessing: found by clean accuracy, or given by the user."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelaudit.errors import DeviceError, ModelFileError, UsageError
from modelaudit.images import CleanImages
from modelaudit.loaders.types import Layout, StatedFacts
from modelaudit.preprocess import (
    PreprocessOptions,
    candidates,
    choose_preprocessing,
    narrowed,
    preprocessing_names,
)
from modelaudit.preprocessing import Preprocessing
from modelaudit.stated import Places
from tests.detectors.cramped import Cramped


def make_pool(pixels: Tensor, labels: Tensor) -> CleanImages:
    n = len(labels)
    return CleanImages(
        pixels, labels, tuple(Path(f"{i}.png") for i in range(n)), ("0" * 64,) * n, (False,) * n
    )


def colours(n: int = 60, channels: int = 3) -> CleanImages:
    """Every image has one random colour; its label is the row of a grid of brightnesses."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(n, channels, 1, 1, generator=generator)
    return make_pool(values.expand(n, channels, 4, 5).clone(), torch.zeros(n, dtype=torch.long))


class Nearest(nn.Module):
    """Knows each of the first colours by heart, as seen through ``preprocessing``."""

    def __init__(self, pool: CleanImages, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.layout = preprocessing.layout
        seen = self.mean_colour(preprocessing(pool.pixels))
        self.register_buffer("seen", seen)

    def mean_colour(self, x: Tensor) -> Tensor:
        return x.mean((1, 2) if self.layout == "NHWC" else (2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.mean_colour(x), self.seen)


def knows(preprocessing: Preprocessing, channels: int = 3) -> tuple[nn.Module, CleanImages]:
    pool = colours(channels=channels)
    pool = make_pool(pool.pixels, torch.arange(len(pool)))
    return Nearest(pool, preprocessing), pool


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_candidate_is_found_when_it_is_right(channels):
    for candidate in candidates(channels, "NCHW"):
        module, pool = knows(candidate, channels)
        choice = choose_preprocessing(module, pool, candidates(channels, "NCHW"))
        assert choice.preprocessing == candidate
        assert choice.accuracy == 1.0
        assert choice.num_classes == 60
        assert choice.images == 60
        assert choice.outputs == "logits"
        assert [c.name for c in choice.table] == list(preprocessing_names(channels))


def test_candidates_fit_the_channels():
    assert "bgr" not in preprocessing_names(1)
    assert "imagenet" not in preprocessing_names(1)
    assert preprocessing_names(4) == ("as-is", "half", "0-255")
    assert preprocessing_names()[0] == "as-is"
    assert set(preprocessing_names()) > {"mnist", "imagenet"}


def test_a_stated_layout_goes_to_all_candidates_and_an_unknown_one_doubles_them():
    assert {c.layout for c in candidates(3, "NHWC")} == {"NHWC"}
    both = candidates(3, None)
    assert [c.layout for c in both] == ["NCHW"] * 8 + ["NHWC"] * 8
    assert both[8].name == "as-is NHWC"


@pytest.mark.parametrize("layout", ["NHWC", None])
def test_nhwc_is_found_and_failures_are_on_record(layout):
    pool = colours()
    pool = make_pool(pool.pixels, torch.arange(len(pool)))
    module = Nearest(pool, Preprocessing(layout="NHWC"))
    choice = choose_preprocessing(module, pool, candidates(3, layout))
    assert choice.preprocessing.layout == "NHWC"
    assert choice.accuracy == 1.0
    if layout is None:
        failed = [c for c in choice.table if c.accuracy is None]
        assert [c.preprocessing.layout for c in failed] == ["NCHW"] * 8
        assert all(c.error for c in failed)


def thresholded(n: int, needed_for_second: int) -> tuple[nn.Module, CleanImages]:
    """As-is gets ``n - needed_for_second`` of ``n`` images right, "half" all of them."""
    pixels = torch.full((n, 4, 2, 2), 0.75)
    pixels[:needed_for_second] = 0.3

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x.mean((1, 2, 3))
            right = ((value < 0) | (value > 0.45)).float()  # half: -0.4 and 0.5
            return torch.stack([1 - right, right], 1)

    return Model(), make_pool(pixels, torch.ones(n, dtype=torch.long))


def test_one_image_does_not_beat_a_simpler_candidate_but_two_do():
    for extra, expected in ((1, "as-is"), (2, "half")):
        choice = choose_preprocessing(*thresholded(20, extra), candidates(4, "NCHW"))
        assert choice.preprocessing.name == expected
        assert [round(c.accuracy * 20) for c in choice.table[:2]] == [20 - extra, 20]
    assert choose_preprocessing(*thresholded(20, 1), candidates(4, "NCHW")).accuracy == 0.95


def test_output_kinds():
    module, pool = knows(Preprocessing())
    for last, kind in (
        (nn.Softmax(1), "probabilities"),
        (nn.LogSoftmax(1), "log-probabilities"),
        (nn.Sigmoid(), "sigmoid"),
    ):
        choice = choose_preprocessing(nn.Sequential(module, last), pool, candidates(3, "NCHW"))
        assert choice.outputs == kind


def test_large_pools_are_sampled_evenly():
    pool = make_pool(torch.zeros(1200, 1, 1, 1), torch.arange(1200) // 400)
    choice = choose_preprocessing(
        lambda x: torch.eye(3)[:1].expand(len(x), 3), pool, candidates(1, "NCHW")
    )
    assert choice.images == 400
    assert choice.accuracy == pytest.approx(1 / 3, abs=0.01)


def test_when_every_candidate_fails_the_message_says_why():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    with pytest.raises(ModelFileError, match=r"\[3, 4, 5\].*8 preprocessings.*mat1"):
        choose_preprocessing(module, colours(), candidates(3, "NCHW"))
    with pytest.raises(ModelFileError, match=r"outputs \[60, K\] expected, got \[60, 3, 4, 5\]"):
        choose_preprocessing(nn.Identity(), colours(), candidates(3, "NCHW"))
    module, pool = knows(Preprocessing())
    with pytest.raises(ModelFileError, match="10 outputs expected, got 60"):
        choose_preprocessing(module, pool, candidates(3, "NCHW"), num_classes=10)


def test_memory_that_runs_out_is_no_wrong_preprocessing():
    module, pool = knows(candidates(3, "NCHW")[-1])
    choice = choose_preprocessing(Cramped(module, room=7), pool, candidates(3, "NCHW"))
    assert choice == choose_preprocessing(module, pool, candidates(3, "NCHW"))
    with pytest.raises(torch.OutOfMemoryError):
        choose_preprocessing(Cramped(module, room=0), pool, candidates(3, "NCHW"))


def test_a_gpu_that_fails_is_no_wrong_preprocessing():
    class AcceleratorError(RuntimeError):  # as torch calls it
        pass

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceError, match=r"illegal memory access .* --device cpu"):
        choose_preprocessing(Failing(), colours(), candidates(3, "NCHW"))


def test_a_candidate_that_an_onnx_graph_refuses_does_not_end_the_list():
    right, pool = knows(Preprocessing(layout="NHWC"))

    def module(x: Tensor) -> Tensor:
        if x.shape[3] != 3:
            raise ModelFileError("ONNX node Conv failed on inputs [60, 3, 4, 5]")
        return right(x)

    choice = choose_preprocessing(module, pool, candidates(3, None))
    assert choice.preprocessing.layout == "NHWC"
    assert choice.table[0].error == "ONNX node Conv failed on inputs [60, 3, 4, 5]"


def resolve(options: PreprocessOptions, channels: int, layout: Layout | None):
    """What is left to try with a person's options and a model file's layout."""
    options.check_channels(channels)
    file = StatedFacts("the model file", layout=layout)
    places = Places((options.facts("the command line"),), (file,))
    return narrowed(places.resolve(channels).facts, channels)


def test_a_given_preprocessing_is_only_measured():
    module, pool = knows(Preprocessing())
    options = resolve(PreprocessOptions("imagenet"), 3, "NCHW")
    choice = choose_preprocessing(module, pool, options)
    assert choice.preprocessing == options[0]
    assert len(choice.table) == 1
    assert choice.accuracy < 0.5


# What is stated --------------------------------------------------------------------------


def test_options_are_kept_as_given():
    given = PreprocessOptions.parse("auto", "0.485,0.456, 0.406", [0.2, 0.2, 0.2], "0-255", "NHWC")
    means, deviations = (0.485, 0.456, 0.406), (0.2, 0.2, 0.2)
    assert given == PreprocessOptions(None, means, deviations, "0-255", "NHWC")
    assert resolve(given, 3, "NCHW") == (
        Preprocessing("explicit", means, deviations, "0-255", layout="NHWC"),
    )
    assert PreprocessOptions.parse() == PreprocessOptions.parse("auto") == PreprocessOptions()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", None])
@pytest.mark.parametrize("own", ["NCHW", "NHWC", None])
def test_the_layout_is_the_users_else_the_files(layout, own):
    assert resolve(PreprocessOptions(layout=layout), 3, own) == candidates(3, layout or own)
    for given in (
        PreprocessOptions("imagenet", layout=layout),
        PreprocessOptions(mean=(0.5,), layout=layout),
        PreprocessOptions(input_range="0-255", layout=layout),
    ):
        found = resolve(given, 3, own)
        known = layout or own
        assert [one.layout for one in found] == ([known] if known else ["NCHW", "NHWC"])


def test_one_number_is_for_all_channels_and_the_rest_has_its_default():
    (given,) = resolve(PreprocessOptions(std=(0.5,)), 4, "NCHW")
    assert given == Preprocessing("explicit", std=(0.5,))


def test_a_channel_order_alone_leaves_the_usual_ones_of_that_order():
    def names(order, channels):
        given = PreprocessOptions.parse(channel_order=order)
        return [one.name for one in resolve(given, channels, "NCHW")]

    assert names("BGR", 3) == ["bgr", "bgr-0-255", "caffe"]
    assert names("RGB", 3) == ["as-is", "imagenet", "cifar10", "half", "0-255"]
    assert names("BGR", 1) == list(preprocessing_names(1))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_numbers_of_a_known_preprocessing_get_its_name(channels):
    for known in candidates(channels, "NCHW"):
        means, deviations = known.mean * (channels if len(known.mean) == 1 else 1), known.std
        spelled_out = PreprocessOptions(
            None, means, deviations, known.input_range, "NCHW", known.channel_order
        )
        assert resolve(spelled_out, channels, None) == (known,)


@pytest.mark.parametrize(
    ("arguments", "channels", "said"),
    [
        ({"mean": "1,1,1"}, 1, "--mean takes 1 number for a model with 1 channel, found 3"),
        ({"std": "1,1,1"}, 4, "--std takes 1 or 4 numbers for a model with 4 channels, found 3"),
        ({"name": "imagenet"}, 1, "no preprocessing 'imagenet' for a model with 1 channel;"),
        ({"name": "mnist"}, 3, "no preprocessing 'mnist' for a model with 3 channels"),
    ],
)
def test_options_that_do_not_fit_the_channels(arguments, channels, said):
    given = PreprocessOptions.parse(**arguments)
    with pytest.raises(UsageError, match=said):
        resolve(given, channels, "NCHW")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mean": "0.5,x"}, "--mean takes numbers separated by commas"),
        ({"mean": ""}, "--mean takes numbers"),
        ({"mean": 0.5}, "--mean takes numbers"),
        ({"mean": "0.5,0.5"}, "--mean takes 1, 3 or 4 numbers; found 2"),
        ({"std": []}, "--std takes 1, 3 or 4 numbers; found 0"),
        ({"std": "0"}, "--std must be above 0"),
        ({"std": "-0.5"}, "--std must be above 0"),
        ({"std": "nan"}, "--std must be above 0"),
        ({"mean": "nan"}, "--mean must be from 0 to 1"),
        ({"mean": "123.68,116.78,103.94"}, "divide values for 0-255 pixels by 255"),
        ({"input_range": "0-1.0"}, "--input-range is 0-1 or 0-255"),
        ({"layout": "HWC"}, "--layout is NCHW or NHWC"),
        ({"channel_order": "GBR"}, "--channel-order is RGB or BGR"),
        ({"mean": "2", "place": "m.toml"}, "m.toml: preprocessing.mean must be from 0 to 1"),
        ({"name": "imagnet"}, "did you mean 'imagenet'"),
        ({"name": 5}, "no preprocessing 5"),
        ({"name": "imagenet", "mean": "0.5"}, "drop it or --mean"),
        ({"name": "imagenet", "input_range": "0-255"}, "drop it or --input-range"),
        ({"name": "imagenet", "channel_order": "BGR"}, "drop it or --channel-order"),
    ],
)
def test_bad_options_fail_before_the_model_is_known(arguments, said):
    with pytest.raises(UsageError, match=said):
        PreprocessOptions.parse(**arguments)
