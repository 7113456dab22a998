"""Image classifiers of the transformers library."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from modelaudit.errors import ModelFileError
from modelaudit.loaders.fit import Mismatch
from modelaudit.loaders.huggingface.files import HuggingFaceFiles
from modelaudit.loaders.huggingface.offline import import_offline

# Settings of how the model is run, not of what it computes. Some name code on the hub.
_HOW_IT_RUNS = ("attn_implementation", "experts_implementation", "implementation_internal",
                "kernel_config", "dtype", "return_dict", "torchscript", "output_attentions",
                "output_hidden_states", "name_or_path")  # fmt: skip
# Hands its model_args to timm, unlike build_timm without a look at them.
_WRAPS_TIMM = "timm_wrapper"


@dataclass(frozen=True)
class Built:
    """A network with its weights.

    Attributes:
        network: image batch -> scores.
        name: of its class.
        unused: tensors in the file that are not part of the network.
    """

    network: nn.Module
    name: str
    unused: tuple[str, ...]


class Logits(nn.Module):
    """A transformers model as ``[B, C, H, W] -> [B, K]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]``."""
        logits: Tensor = self.network(pixel_values=x, return_dict=True).logits
        return logits


def build_transformers(files: HuggingFaceFiles, weights: Mapping[str, Tensor]) -> Built:
    """The network that ``config.json`` describes, with the weights.

    transformers itself puts the weights in place, because it knows how their names changed over
    its versions; it is given tensors only, no file and no name on the hub.

    Raises:
        ModelFileError: unknown or not an image classifier, or the weights do not fit.
    """
    transformers = import_offline("transformers", str(files.folder))
    name = _class_name(transformers, files)
    with _silent(transformers):
        try:
            config_class = transformers.CONFIG_MAPPING[files.config["model_type"]]
            config = config_class.from_dict(_computation(files.config))
            network, info = getattr(transformers, name).from_pretrained(
                None,
                config=config,
                state_dict={key: value.float() if value.is_floating_point() else value
                            for key, value in weights.items()},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        # Any setting in config.json can be wrong in its own way.
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise ModelFileError(
                f"{files.folder} cannot be built as {name} by transformers "
                f"{transformers.__version__}: {type(error).__name__}: {reason[:200]}"
            ) from error
    Mismatch(
        missing=sorted(info["missing_keys"]),
        shapes=[
            f"{key}: {list(found)} in the file, {list(expected)} expected"
            for key, found, expected in sorted(info["mismatched_keys"])
        ],
        expected=len(network.state_dict()),
    ).require_none(f"The weights in {files.folder} do not fit {name}, which config.json names")
    # Tables of positions, which older versions saved, are computed anew.
    unused = [k for k in info["unexpected_keys"] if k not in weights or weights[k].ndim]
    unused = [k for k in unused if k not in weights or weights[k].is_floating_point()]
    return Built(Logits(network), name, tuple(sorted(unused)))


def _class_name(transformers: ModuleType, files: HuggingFaceFiles) -> str:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN,
    )

    model_type = files.config["model_type"]
    if model_type not in KNOWN:
        near = difflib.get_close_matches(model_type, KNOWN, n=3, cutoff=0.4)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ModelFileError(
            f"{files.folder}: transformers {transformers.__version__} has no image classifier of "
            f"the model_type {model_type!r}.{hint} Export the model with torch.onnx.export."
        )
    if model_type == _WRAPS_TIMM:
        raise ModelFileError(
            f"{files.folder} is a timm model (model_type {model_type!r}), but its config.json "
            "names no architecture. Save it again with timm or transformers."
        )
    classes = KNOWN[model_type]
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    stated = files.config.get("architectures") or [classes[0]]
    if stated[0] not in classes:
        raise ModelFileError(
            f"{files.folder} holds {stated[0]!r}, which is not an image classifier; expected "
            f"{' or '.join(classes)}."
        )
    return str(stated[0])


def _computation(config: Any) -> Any:
    """The configuration without settings of how it is run, at any depth."""
    if isinstance(config, Mapping):
        return {
            key: _computation(value)
            for key, value in config.items()
            if not str(key).endswith(_HOW_IT_RUNS)
        }
    return [_computation(value) for value in config] if isinstance(config, list) else config


@contextmanager
def _silent(transformers: ModuleType) -> Iterator[None]:
    """Without progress bars and the table of what did not fit, which the error says shorter."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
