"""Factories for ``--arch`` that do what a hostile model file might, once it runs code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

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


def channel() -> Any:
    """The worker's own way to talk to the supervisor."""
    gc.unfreeze()  # what the worker made before it imported torch is hidden otherwise
    return next(thing for thing in gc.get_objects() if type(thing).__name__ == "_Channel")


def never_stop_talking() -> nn.Module:
    while True:
        channel().send({"progress": ["loading the model", 0.5]})
        time.sleep(0.02)


def hang_up() -> nn.Module:
    """Closes the channel, and lives on."""
    channel()._stream.close()
    time.sleep(3600)
    return fits()


def leave_a_child() -> nn.Module:
    """Its child is in a session of its own and holds the channel open."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    os._exit(3)


def send_odd_progress() -> nn.Module:
    for share in (b"1" + b"0" * 4000, b"NaN", b"-1", b"true", b'"x"', b"null"):
        channel()._stream.write(b'{"progress": ["odd", ' + share + b"]}\n")
    return fits()


def send_an_odd_finished_detector() -> nn.Module:
    channel().send({"partial": {"key": "../elsewhere"}})
    return fits()


def fill_the_gpu() -> nn.Module:
    raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")


def send_too_many_values() -> nn.Module:
    channel()._stream.write(b'{"result": [' + b"0," * 10_000_001 + b"0]}\n")
    return fits()


def steer_the_terminal() -> nn.Module:
    channel().send({"progress": ["\x1b[2Jstage\ud800", 0.5]})
    raise RuntimeError("\x1b[2Jno-backdoor-found\nsecond line \ud800")


def steer_the_terminal_and_crash() -> nn.Module:
    os.write(2, b"\x1b[2Jno-backdoor-found")
    os._exit(5)


def dig() -> nn.Module:
    """Makes folders so deep that none of them has a path that the system takes."""
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    return fits()
