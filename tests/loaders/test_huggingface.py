"""Folders in the layout of the Hugging Face hub, of transformers and timm."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import transformers
from torch import Tensor, nn

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders import LoadOptions, load_model, sha256_of
from tests.loaders.test_state_dict import Payload

LABELS = {0: "cat", 1: "dog", 2: "frog", 3: "ship", 4: "truck"}
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "vit": TRANSFORMER,
    "deit": {**TRANSFORMER, "architectures": ["DeiTForImageClassification"]},
    "beit": TRANSFORMER,
    "dinov2": {k: v for k, v in TRANSFORMER.items() if k != "intermediate_size"},
    "resnet": {**STAGES, "embedding_size": 8},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 4},
    "convnext": {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    "swin": {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2],
             "window_size": 4},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a loader asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def change_json(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


def transformers_folder(folder: Path, model_type: str = "vit", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[model_type](
        **{**FAMILIES[model_type], **settings},
        id2label=LABELS,
        label2id={name: k for k, name in LABELS.items()},
    )
    network = transformers.AutoModelForImageClassification.from_config(config).eval()
    network.save_pretrained(folder)
    return network


def timm_folder(folder: Path, **config: Any) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False, num_classes=5).eval()
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    cfg = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
        "input_size": [3, 64, 64],
        "fixed_input_size": False,
    }
    stated = {"architecture": "resnet10t", "num_classes": 5, "pretrained_cfg": cfg}
    write_json(folder / "config.json", {**stated, "label_names": list(LABELS.values()), **config})
    return network


# What they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families_of_transformers(tmp_path, model_type):
    network = transformers_folder(tmp_path, model_type)
    loaded = load_model(tmp_path)
    assert (loaded.format, loaded.layout, loaded.num_classes) == ("huggingface", "NCHW", 5)
    assert loaded.stated[-1].labels == tuple(LABELS.values())
    assert loaded.notes == ()
    assert loaded.details["library"] == "transformers"
    assert not any(p.requires_grad for p in loaded.module.parameters())
    channels, height, width = loaded.input_shape
    ours = torch.rand(3, channels, height or 32, width or 32).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    out, expected = loaded.module(ours), network(theirs).logits
    assert torch.allclose(out, expected, atol=1e-5)
    out.logsumexp(1).sum().backward()
    expected.logsumexp(1).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_timm(tmp_path):
    network = timm_folder(tmp_path)
    loaded = load_model(tmp_path)
    (facts,) = loaded.stated
    assert facts.source == "config.json (pretrained_cfg)"
    assert (facts.mean, facts.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    assert (facts.input_range, facts.image_size) == ("0-1", (64, 64))
    assert facts.labels == tuple(LABELS.values())
    assert loaded.input_shape == (3, None, None)
    assert loaded.details["library"] == "timm"
    x = torch.rand(2, 3, 40, 40)
    assert torch.allclose(loaded.module(x), network(x), atol=1e-5)


def test_timm_with_arguments_and_the_prefix_of_transformers(tmp_path):
    network = timm.create_model("resnet10t", num_classes=5, in_chans=1, output_stride=16).eval()
    weights = {f"timm_model.{k}": v for k, v in network.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    config = {
        "model_type": "timm_wrapper",
        "architecture": "resnet10t.c3_in1k",
        "num_classes": 5,
        "model_args": {"in_chans": 1, "output_stride": 16},
    }
    write_json(tmp_path / "config.json", config)
    loaded = load_model(tmp_path)
    assert loaded.input_shape == (1, None, None)
    x = torch.rand(2, 1, 40, 40)
    assert torch.allclose(loaded.module(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_in_the_folder_stands_for_it(tmp_path, name):
    network = transformers_folder(tmp_path)
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(load_model(tmp_path / name).module(x), network(x).logits, atol=1e-5)


def test_arch_decides_against_the_folder(tmp_path):
    transformers_folder(tmp_path)
    with pytest.raises(ModelFileError, match="do not fit --arch resnet18"):
        load_model(tmp_path / "model.safetensors", LoadOptions(arch="resnet18"))
    notes = load_model(tmp_path, LoadOptions(arch="resnet18")).notes
    assert notes == ("--arch resnet18 is ignored: the huggingface file holds its own graph.",)


def test_shards_half_precision_and_their_hash(tmp_path):
    network = transformers_folder(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {key: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(weights)}
    for file in set(names.values()):
        shard = {k: v.half() for k, v in weights.items() if names[k] == file}
        safetensors.torch.save_file(shard, tmp_path / file)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": names})
    x = torch.rand(2, 3, 16, 16)
    expected = network(x).logits
    for path in (tmp_path, tmp_path / "model-00001-of-00002.safetensors"):
        assert torch.allclose(load_model(path).module(x), expected, atol=1e-2)
    before = sha256_of(tmp_path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / min(names.values()))
    assert sha256_of(tmp_path) != before
    (tmp_path / min(names.values())).unlink()
    with pytest.raises(ModelFileError, match="which is missing"):
        load_model(tmp_path)
    write_json(
        tmp_path / "model.safetensors.index.json", {"weight_map": {"x": "../other.safetensors"}}
    )
    with pytest.raises(UnsafeModelError, match=r"names '\.\./other\.safetensors'"):
        load_model(tmp_path)


def as_pickle(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def test_pickled_weights(tmp_path):
    network = transformers_folder(tmp_path)
    as_pickle(tmp_path, network.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(load_model(tmp_path).module(x), network(x).logits, atol=1e-5)


# What they state ------------------------------------------------------------------------------

NORMALISED = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}


@pytest.mark.parametrize(
    ("content", "mean", "std", "input_range"),
    [
        (NORMALISED, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "0-1"),
        ({**NORMALISED, "do_normalize": False}, (0.0,), (1.0,), "0-1"),
        ({"do_rescale": True, "rescale_factor": 0.00392156862745098}, (0.0,), (1.0,), "0-1"),
        ({"do_rescale": False, "do_normalize": False}, (0.0,), (1.0,), "0-255"),
        ({**NORMALISED, "do_rescale": False, "image_mean": [127.5], "image_std": [51]},
         (0.5,), (0.2,), "0-1"),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, (0.5,), (0.5,), "0-1"),
        ({"do_normalize": True}, None, None, None),
        ({**NORMALISED, "rescale_factor": 0}, None, None, None),
    ],
)  # fmt: skip
def test_normalisation(tmp_path, content, mean, std, input_range):
    transformers_folder(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", content)
    facts = load_model(tmp_path).stated[0]
    assert facts.source == "preprocessor_config.json"
    assert facts.input_range == input_range
    assert facts.mean == (pytest.approx(mean) if mean else None)
    assert facts.std == (pytest.approx(std) if std else None)
    assert facts.channel_order == "RGB"


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ({"size": 24}, (24, 24)),
        ({"size": {"height": 24, "width": 32}}, (24, 32)),
        ({"size": {"shortest_edge": 24}}, (24, 24)),
        ({"size": [24, 32]}, (24, 32)),
        ({"size": 32, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, (24, 24)),
        ({"size": 32, "do_center_crop": True, "crop_size": 24}, (24, 24)),
        ({"size": 32, "do_center_crop": False, "crop_size": 24}, (32, 32)),
        ({"size": 32, "do_resize": False}, None),
        ({"size": {"longest_edge": 5}}, None),
        ({"size": -1}, None),
    ],
)
def test_sizes(tmp_path, content, size):
    transformers_folder(tmp_path, "resnet")
    write_json(tmp_path / "preprocessor_config.json", content)
    loaded = load_model(tmp_path)
    assert loaded.stated[0].image_size == size
    assert loaded.input_shape == (3, *(size or (None, None)))


def test_other_facts(tmp_path):
    transformers_folder(tmp_path)
    processor = {"image_processor": {"do_flip_channel_order": True, "do_normalize": False}}
    write_json(tmp_path / "processor_config.json", processor)
    change_json(tmp_path / "config.json", id2label={str(k): f"LABEL_{k}" for k in range(5)})
    facts, config = load_model(tmp_path).stated
    assert (facts.source, facts.channel_order) == ("processor_config.json", "BGR")
    assert config.labels is None
    assert config.image_size == (16, 16)


# Folders that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "vitt"}, r"model_type 'vitt'\. Near: vit"),
        ({"model_type": "bert"}, "no image classifier of the model_type 'bert'"),
        ({"architectures": ["ViTModel"]}, "holds 'ViTModel', which is not an image classifier"),
        ({"hidden_size": 24}, r"do not fit ViTForImageClassification.*\n  shape: "),
        ({"num_hidden_layers": 3}, r"do not fit ViTForImageClassification.*\n  missing: "),
        ({"hidden_act": "no_such"}, "cannot be built as ViTForImageClassification"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
        ({"model_type": 5}, "names neither a model_type"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path, changes, said):
    transformers_folder(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_model(tmp_path)
    assert len(str(caught.value).splitlines()) <= 10


def test_unused_tensors_are_a_note(tmp_path):
    network = transformers_folder(tmp_path)
    weights: dict[str, Tensor] = dict(network.state_dict())
    weights |= {"vit.pooler.extra": torch.zeros(3), "vit.position_ids": torch.arange(3)}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (note,) = load_model(tmp_path).notes
    assert "1 tensors in the file are not part of ViTForImageClassification" in note
    assert "vit.pooler.extra" in note


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "resnet1t"}, "no architecture 'resnet1t'. Near: "),
        ({"architecture": "hf-hub:somebody/model"}, "no architecture"),
        ({"num_classes": 7}, r"shape: fc\.weight: \[5, "),
        ({"model_args": {"no_such": 1}}, "cannot be built by timm"),
        ({"model_args": 3}, "not a JSON object"),
    ],
)
def test_timm_configurations_that_do_not_fit(tmp_path, changes, said):
    timm_folder(tmp_path, **changes)
    with pytest.raises(ModelFileError, match=said):
        load_model(tmp_path)


def test_incomplete_folders(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "vit"})
    with pytest.raises(ModelFileError, match=r"no weights; expected model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelFileError, match=r"Give .*model\.onnx itself"):
        load_model(tmp_path)
    for text in ("[1]", "{", "\ud800".encode("utf-8", "surrogatepass")):
        (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ModelFileError, match=r"config\.json"):
            load_model(tmp_path)


def test_without_the_extra(tmp_path, monkeypatch):
    import importlib

    transformers_folder(tmp_path)

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModelFileError, match=r"pip install 'modelaudit-backdoor\[hf\]'"):
        load_model(tmp_path)


# Hostile folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto_map": {"AutoModelForImageClassification": "evil.Model"}}, r"code.*auto_map"),
        ({"backbone_config": {"auto_map": {"AutoModel": "evil.Model"}}}, r"code.*auto_map"),
        ({"use_pretrained_backbone": True}, "use_pretrained_backbone"),
    ],
)
def test_code_of_the_folder_is_refused(tmp_path, changes, said):
    transformers_folder(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(UnsafeModelError, match=said):
        load_model(tmp_path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"]
)
def test_code_on_the_hub_is_not_asked_for(tmp_path, key):
    network = transformers_folder(tmp_path)
    change_json(tmp_path / "config.json", **{key: "somebody/kernel"})
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(load_model(tmp_path).module(x), network(x).logits, atol=1e-5)


def test_a_pickle_payload_does_not_run(tmp_path):
    network = transformers_folder(tmp_path)
    as_pickle(tmp_path, {**network.state_dict(), "extra": Payload(tmp_path / "canary")})
    with pytest.raises(UnsafeModelError, match="holds more than weights"):
        load_model(tmp_path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained": True},
        {"checkpoint_path": "x.pth"},
        {"pretrained_cfg_overlay": {"file": "x"}},
        {"act_layer": "/etc/passwd"},
    ],
)
def test_arguments_that_describe_no_network_are_refused(tmp_path, arguments):
    timm_folder(tmp_path, model_args=arguments)
    with pytest.raises(UnsafeModelError, match="does not describe a network"):
        load_model(tmp_path)


def test_timm_is_not_reached_around_the_check_of_its_arguments(tmp_path):
    """transformers' wrapper of timm would open the checkpoint."""
    timm_folder(tmp_path)
    config = {"model_type": "timm_wrapper", "num_classes": 5, "label_names": list("abcde")}
    config |= {"pretrained_cfg": {"a": 1}, "model_args": {"checkpoint_path": "/etc/passwd"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="names no architecture"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["a" * 300 + ".bin", "a\0b.bin", "\ud800.bin"])
def test_odd_names_of_shards_are_missing_files(tmp_path, name):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="which is missing") as caught:
        sha256_of(tmp_path)
    str(caught.value).encode()  # can be written into a report
