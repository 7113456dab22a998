"""Load a model with what a ``modelaudit.toml`` beside it adds."""

from __future__ import annotations

from pathlib import Path

from modelaudit.errors import UsageError
from modelaudit.loaders import LoadedModel, LoadOptions, load_model
from modelaudit.model_config import CONFIG_NAME, ModelConfig, read_model_config


def load_with_config(
    model: Path, arch: str | None, num_classes: int | None
) -> tuple[LoadedModel, ModelConfig]:
    """The model, loaded with what is said beside it where the command line leaves it open.

    Args:
        model: path of the model.
        arch, num_classes: from the command line; see :class:`modelaudit.loaders.LoadOptions`.

    Raises:
        ModelAuditError: the model or its ``modelaudit.toml`` cannot be used, or they disagree
            about the number of outputs.
    """
    config = read_model_config(model)
    loaded = load_model(model, LoadOptions(arch or config.arch, num_classes or config.num_classes))
    if num_classes is None and config.num_classes not in (None, loaded.num_classes):
        raise UsageError(
            f"{CONFIG_NAME} beside {model} says num_classes = {config.num_classes}, but the model "
            f"has {loaded.num_classes} outputs. Correct or remove it."
        )
    return loaded, config
