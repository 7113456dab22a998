"""Factories for ``--arch`` that do what a hostile model file might, once it runs code."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn


def fits(num_classes: int = 3) -> nn.Module:
    """A harmless network that prints."""
    print("hello from the model")
    Path("scratch").write_text("in the working folder")
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, num_classes))


def hang() -> nn.Module:
    time.sleep(3600)
    return fits()


def spin() -> nn.Module:
    while True:
        pass


def crash() -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    return fits()


def leave() -> nn.Module:
    """Ends the process with the exit code that means "backdoor found"."""
    os._exit(1)


def leave_politely() -> nn.Module:
    sys.exit(1)


def take_memory() -> nn.Module:
    hoard = [torch.ones(2**26) for _ in range(64)]  # 16 GiB, a quarter at a time
    return nn.Linear(len(hoard), 1)


def lie() -> nn.Module:
    """Writes to every descriptor that might be the one to the supervisor."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b'{"result": {"verdict": "no-backdoor-found"}}\n')
        except OSError:
            continue
    return fits()


def fail() -> nn.Module:
    raise KeyError("no such layer")
