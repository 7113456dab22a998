"""The worker process: confine itself, do one task, send the result.

Messages are lines of JSON: one request on stdin; on what was stdout, ``{"progress": [stage,
share]}`` and ``{"partial": ...}`` as often as there is some, then ``{"result": ...}`` or
``{"error": {...}}``. Whatever libraries print goes to stderr, which the supervisor collects. SIGINT
asks the task to end with what it has.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from modelaudit.errors import first_line, is_out_of_gpu_memory, is_out_of_memory
from modelaudit.isolation.limits import Limits
from modelaudit.isolation.sandbox import confine, limit_memory
from modelaudit.isolation.tasks import TASKS, Line
from modelaudit.plain import from_plain

# People cannot read faster, and the supervisor need not be woken more often.
_SECONDS_BETWEEN_MESSAGES = 0.1


def main() -> None:
    """Do the task that stands on stdin."""
    started, stop = time.monotonic(), threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    request = json.loads(sys.stdin.buffer.read())
    channel = _Channel(_take_stdout())
    confinement = {}
    limits = from_plain(Limits, request["limits"]) if request["limits"] else None
    if limits:
        confinement = confine(limits, Path.cwd())
    line = Line(channel.progress, lambda value: channel.send({"partial": value}), stop, started)
    try:
        channel.send({"result": _run(request, limits, confinement, line)})
    except Exception as error:  # every failure becomes a message; the supervisor judges it
        channel.send({"error": _describe(error)})
    except SystemExit:  # a library's: the supervisor says that nothing came
        os._exit(1)
    # What a library set up for the end of the process must not delay or change what was said.
    os._exit(0)


def _run(
    request: dict[str, Any],
    limits: Limits | None,
    confinement: dict[str, str],
    line: Line,
) -> Any:
    torch = _torch()
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    if limits:
        confinement = {**confinement, "memory": limit_memory(limits.memory, request["device"])}
    return TASKS[request["task"]](request["payload"], confinement, line)


def _torch() -> ModuleType:
    """torch, imported without looking for garbage, which is a fifth of the time.

    What it makes stays as long as the process, and is not looked at again.
    """
    gc.disable()
    import torch

    gc.freeze()
    gc.enable()
    return torch


class _Channel:
    """Sends messages; progress at most ten times a second, a new stage always."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._stage = ""
        self._last = 0.0

    def send(self, message: dict[str, Any]) -> None:
        self._stream.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        self._stream.flush()

    def progress(self, stage: str, share: float) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._last >= _SECONDS_BETWEEN_MESSAGES:
            self._stage, self._last = stage, now
            self.send({"progress": [stage, share]})


def _take_stdout() -> BinaryIO:
    """The stream to the supervisor; later prints go to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _describe(error: Exception) -> dict[str, str]:
    if is_out_of_gpu_memory(error):
        return {"kind": "gpu-memory", "message": first_line(error)}
    if is_out_of_memory(error):
        return {"kind": "memory", "message": str(error)}
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "stage": str(getattr(error, "stage", None) or ""),
        "traceback": "".join(traceback.format_exception(error)),
    }
