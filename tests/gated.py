"""A classifier whose loading says that it began, and waits for a gate to open."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import torch
from torch import nn

from tests.brightest import SIZE, K

#: Environment variable: the folder in which loading says so, and in which the gate may be shut.
FOLDER = "MODELAUDIT_TEST_GATE"
SHUT = "shut"


class Brightest(nn.Module):
    """The class is the brightest of the first columns; see :mod:`tests.brightest`."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Parameter(10 * torch.eye(SIZE, K))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(1, 2)) @ self.pick


def brightest_behind_a_gate() -> nn.Module:
    """A factory for ``--arch``."""
    folder = Path(os.environ[FOLDER])
    (folder / f"began-{uuid.uuid4()}").touch()
    while (folder / SHUT).exists():
        time.sleep(0.02)
    return Brightest()


def begun(folder: Path) -> int:
    """How often a model began to be loaded."""
    return len(list(folder.glob("began-*")))
