"""The JSON Schemas that are shipped with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def shipped_schema(name: str) -> dict[str, Any]:
    """The JSON Schema in ``<name>.schema.json`` beside this file."""
    text = resources.files("modelaudit").joinpath(f"{name}.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
