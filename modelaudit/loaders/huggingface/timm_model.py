"""Image classifiers of the timm library."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modelaudit.errors import ModelFileError, UnsafeModelError
from modelaudit.loaders.fit import fit, strip_prefixes
from modelaudit.loaders.huggingface.files import CONFIG, HuggingFaceFiles
from modelaudit.loaders.huggingface.offline import import_offline
from modelaudit.loaders.huggingface.transformers_model import Built
from modelaudit.loaders.outputs import require_matrix

# Arguments of timm.create_model that say where weights come from, or make something else.
_NOT_FROM_A_FILE = ("pretrained", "checkpoint", "cache_dir", "scriptable", "exportable",
                    "features_only", "no_jit", "file", "url", "hf_hub")  # fmt: skip
_PLAIN_TEXT = re.compile(r"[\w.,:+-]{0,80}")


class Scores(nn.Module):
    """A timm model as ``[B, C, H, W] -> [B, K]``; of several outputs the first matrix."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]``."""
        return require_matrix(self.network(x), len(x))


def build_timm(files: HuggingFaceFiles, weights: Mapping[str, Tensor]) -> Built:
    """The network that ``config.json`` names, with the weights.

    Raises:
        UnsafeModelError: its arguments are more than numbers and names.
        ModelFileError: unknown architecture, or the weights do not fit.
    """
    timm = import_offline("timm", str(files.folder))
    # The part behind the dot says which weights were published under the name.
    name = str(files.config["architecture"]).partition(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ModelFileError(
            f"{files.folder}: timm {timm.__version__} has no architecture {name!r}.{hint} A newer "
            "timm may: pip install -U timm"
        )
    try:
        network = timm.create_model(name, pretrained=False, **_arguments(files))
    except UnsafeModelError:
        raise
    # Any argument in config.json can be wrong in its own way.
    except Exception as error:
        raise ModelFileError(
            f"{files.folder} cannot be built by timm {timm.__version__} as {name}: "
            f"{type(error).__name__}: {str(error)[:200]}"
        ) from error
    wanted = network.state_dict()
    weights = strip_prefixes(weights, set(wanted), ("timm_model.",))
    mismatch = fit(wanted, weights)
    mismatch.require_none(f"The weights in {files.folder} do not fit {name}, which {CONFIG} names")
    network.load_state_dict({k: v for k, v in weights.items() if k in wanted}, strict=False)
    return Built(Scores(network), name, ())


def _arguments(files: HuggingFaceFiles) -> dict[str, Any]:
    """What ``timm.create_model`` is called with besides the name."""
    given = files.config.get("model_args") or {}
    if not isinstance(given, dict):
        raise ModelFileError(f"{files.folder / CONFIG}: model_args is not a JSON object.")
    for key, value in given.items():
        if key.startswith(_NOT_FROM_A_FILE) or not _is_plain(value):
            raise UnsafeModelError(
                f"{files.folder / CONFIG} is refused: model_args has {key!r}, which does not "
                "describe a network."
            )
    stated = {
        key: files.config[key]
        for key in ("num_classes", "global_pool")
        if isinstance(files.config.get(key), int | str)
    }
    channels = (files.config.get("pretrained_cfg") or {}).get("input_size") or []
    if len(channels) == 3 and channels[0] != 3:
        stated["in_chans"] = channels[0]
    return {**stated, **given}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(part) for part in [*value, *value.values()])
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    return not isinstance(value, str) or bool(_PLAIN_TEXT.fullmatch(value))
