"""Shared by all tests: one thread per process, no network, the bundled models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

BUNDLED = Path(__file__).parent.parent / "fixtures" / "bundled"


def bundled_models() -> list[dict[str, Any]]:
    """Entries of the bundled manifest."""
    models: list[dict[str, Any]] = json.loads((BUNDLED / "manifest.json").read_text())["models"]
    return models


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("MODELAUDIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
