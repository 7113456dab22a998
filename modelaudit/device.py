"""Where a model runs, and how exactly it computes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modelaudit.errors import UsageError, first_line

#: Where Linux shows that there is a GPU, whether or not torch can use it.
_DRIVER = Path("/dev/nvidiactl")


def device_of(name: str) -> tuple[torch.device, str]:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here, and what to know about the choice.

    Raises:
        UsageError: another name, or there is no such device, or torch cannot compute on it.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: expected auto, cpu or cuda.")
    if name == "cpu":
        return torch.device("cpu"), ""
    problem = _problem_with_cuda()
    if not problem:
        return torch.device("cuda"), ""
    if name == "cuda":
        raise UsageError(f"--device cuda: {problem}. Use --device cpu.")
    seen = torch.cuda.is_available() or _DRIVER.exists()
    return torch.device("cpu"), f"The GPU was not used: {problem}." if seen else ""


def _problem_with_cuda() -> str:
    """Why nothing can be computed on a CUDA device; empty if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:  # this torch has no code for an old one, or it is full
        return f"torch cannot compute on the CUDA device here ({first_line(error)})"
    return ""


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within it, a GPU computes float32 in float32, and convolutions the same way each time.

    By default torch lets convolutions round their operands to TF32, which has three digits: too few
    for the comparison with a reference runtime, and for the same numbers as on a CPU. Operators
    that add in any order remain, so that two scans on a GPU may differ in the last digits. May
    decorate a function, too.
    """
    settings = _settings()
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _settings() -> list[tuple[Any, str, object]]:
    """Torch's settings, and their values within :func:`exact_arithmetic`.

    Those of rounding have two names. The newer one (since 2.9) is taken where somebody has used it:
    the older one cannot be read any more then. Where it can, a model might read it.
    """
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    try:
        for place in (products, convolutions):
            _ = place.allow_tf32
    except RuntimeError:
        places = products, convolutions.conv, convolutions.rnn
        settings: list[tuple[Any, str, object]] = [
            (one, "fp32_precision", "ieee") for one in places
        ]
    else:
        settings = [(place, "allow_tf32", False) for place in (products, convolutions)]
    return [*settings, (convolutions, "deterministic", True), (convolutions, "benchmark", False)]
