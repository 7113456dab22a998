"""Keep the Hugging Face libraries away from the network."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from modelaudit.errors import ModelFileError

# The libraries read these once, when they are imported. The last one keeps transformers from
# replacing layers with compiled code from the hub.
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "USE_HUB_KERNELS": "0",
}


def import_offline(name: str, what: str) -> ModuleType:
    """Import ``name`` so that it fetches nothing.

    Args:
        name: ``transformers`` or ``timm``.
        what: the file that needs it, for the message.

    Raises:
        ModelFileError: it is not installed.
    """
    os.environ.update(_SETTINGS)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelFileError(
            f"{what} needs {name} ({error}). Install it with: pip install 'modelaudit-backdoor[hf]'"
        ) from error
