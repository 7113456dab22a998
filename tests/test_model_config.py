"""``modelaudit.toml``: what it may say, and that it can do no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelaudit.errors import ImagesError, UsageError
from modelaudit.model_config import ModelConfig, read_model_config
from modelaudit.preprocess import PreprocessOptions

FULL = """
arch = "resnet18"
num_classes = 2
labels = ["cat", "dog"]

[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.25]
input_range = "0-255"
channel_order = "BGR"
layout = "NHWC"
image_size = [32, 48]
"""


def written(folder: Path, text: str) -> Path:
    (folder / "modelaudit.toml").write_text(text, encoding="utf-8")
    return folder / "model.onnx"


def test_everything_can_be_said(tmp_path: Path) -> None:
    config = read_model_config(written(tmp_path, FULL))
    assert (config.arch, config.num_classes) == ("resnet18", 2)
    facts = config.facts()
    assert facts.source == "modelaudit.toml"
    assert facts.labels == ("cat", "dog")
    assert (facts.mean, facts.std) == ((0.5, 0.5, 0.5), (0.25,))
    assert (facts.input_range, facts.channel_order, facts.layout) == ("0-255", "BGR", "NHWC")
    assert facts.image_size == (32, 48)
    assert read_model_config(tmp_path) == config  # a model that is a folder


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_model_config(tmp_path / "model.onnx") == ModelConfig()
    facts = ModelConfig().facts()
    assert (facts.labels, facts.mean, facts.layout, facts.image_size) == (None,) * 4


def test_a_name_stands_for_its_numbers(tmp_path: Path) -> None:
    text = '[preprocessing]\nname = "caffe"\nimage_size = 224'
    config = read_model_config(written(tmp_path, text))
    assert config.image_size == (224, 224)
    assert (config.facts().channel_order, config.facts().input_range) == ("BGR", "0-255")
    with pytest.raises(UsageError, match=r"modelaudit.toml: preprocessing.mean .* found 3"):
        PreprocessOptions(mean=(0.1,) * 3, place="modelaudit.toml").check_channels(1)


def test_labels_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    config = read_model_config(written(tmp_path, 'labels_file = "names.txt"'))
    assert config.labels == ("cat", "dog")
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    with pytest.raises(ImagesError, match="no name for output 1"):
        read_model_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lables = []", "no key 'lables'; did you mean 'labels'?"),
        ("layout = 'NCHW'", "no key 'layout'; did you mean 'preprocessing.layout'?"),
        ("[preprocessing]\narch = 'vgg11'", "'preprocessing.arch'; did you mean 'arch'?"),
        ("[preprocessing]\nxyz = 1", "known here: preprocessing.name, preprocessing.mean"),
        ("labels = 3", "labels must be a list of names .* found 3"),
        ("labels = ['a', '']", "list of names"),
        ("num_classes = true", "num_classes must be a whole number"),
        ("num_classes = 1", "at least 2"),
        ("preprocessing = 'imagenet'", "must be a table"),
        ("[preprocessing]\nmean = 0.5", "preprocessing.mean must be a list"),
        ("[preprocessing]\nmean = [123.6]", "preprocessing.mean must be from 0 to 1"),
        ("[preprocessing]\nstd = [0.0]", "preprocessing.std must be above 0"),
        ("[preprocessing]\nmean = [nan]", "preprocessing.mean must be from 0 to 1"),
        ("[preprocessing]\nname = 'imagnet'", "did you mean 'imagenet'"),
        ("[preprocessing]\nname = 'half'\nmean = [0.5]", "drop it or .*preprocessing.mean"),
        ("[preprocessing]\ninput_range = '0-1.0'", "preprocessing.input_range is 0-1 or 0-255"),
        ("[preprocessing]\nlayout = 'HWC'", "preprocessing.layout is NCHW or NHWC"),
        ("[preprocessing]\nimage_size = 0", "image_size must be pixels up to 8192"),
        ("[preprocessing]\nimage_size = [1, 2, 3]", "image_size must be"),
        ("arch = 'os:system'", "Code is never run because of this file"),
        ("arch = 'package.module:factory'", "is not the name of a torchvision model"),
        ("arch = 'a/b'", "is not the name of a torchvision model"),
        ("labels_file = '../names.txt'", "must stay in the folder"),
        ("labels_file = '/etc/hostname'", "must stay in the folder"),
        ("labels_file = 'link.txt'", "must stay in the folder"),
        ("labels_file = 'none.txt'", "must be a file of at most"),
        ("labels_file = '.'", "must be a file of at most"),
        ('labels_file = "\\u0000"', "cannot be used"),
        ("labels = ['a']\nlabels_file = 'n.txt'", "exclude each other"),
        ("labels = [", "is not valid TOML"),
        ("labels = " + "[" * 5000, "is not valid TOML"),
        ("num_classes = " + "9" * 5000, "cannot be read"),
        ("# " + "x" * 2**18, "larger than 256 KiB"),
        ("a" + ".a" * 2**16 + " = 1", "key of more than 8 parts"),
        ("x = {" + '"\\"" . ' * 2**14 + "a = 1}", "key of more than 8 parts"),
    ],
)
def test_mistakes_are_explained_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text("secret\n")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "names.txt")
    with pytest.raises(UsageError, match=said) as caught:
        read_model_config(written(folder, text))
    assert "modelaudit.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modelaudit.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_model_config(tmp_path)
    (tmp_path / "modelaudit.toml").unlink()
    os.mkfifo(tmp_path / "modelaudit.toml")
    with pytest.raises(UsageError, match="not a regular file"):
        read_model_config(tmp_path)
