"""The conversation with a worker process: send the request, watch, make sense of what it says."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from modelaudit.errors import (
    InternalError,
    ScanInterrupted,
    WorkerCrashError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
    error_class,
)
from modelaudit.isolation.limits import Limits
from modelaudit.isolation.resident import resident_bytes
from modelaudit.plain import printable
from modelaudit.stages import STARTING, StageProgress

#: Seconds that the import of the libraries may take.
_SLOW_START = 300
# A report has, per detector, a number for each pair of classes.
_LONGEST_MESSAGE = 256 * 2**20
_MOST_VALUES = 10**7
_MOST_WAITING = 4
_LONGEST_TEXT = 20_000
_KEPT_STDERR = 64 * 2**10
_TICK = 0.2
# How long the last words of a worker that ended may be on their way, in seconds.
_LAST_WORDS = 5.0
# Seconds in which a worker that was asked to end must have put together what it knows.
_LONGEST_FAREWELL = 60.0
# What the program itself may hold beside the model.
_OWN_MEMORY = 2**30


class Conversation:
    """The conversation with one worker process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits | None,
        progress: StageProgress,
        partial: Callable[[Any], None],
        stop: threading.Event,
    ) -> None:
        self._process = process
        self._limits = limits
        self._progress = progress
        self._partial = partial
        self._stop = stop
        self._asked_to_stop: float | None = None
        self._stage = STARTING
        self._started = time.monotonic()
        self._printed: deque[bytes] = deque()
        self._messages: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._over = threading.Event()
        self._collector: threading.Thread | None = None
        self._ended: float | None = None

    def result_of(self, request: Mapping[str, Any], cancelled: threading.Event) -> Any:
        """Send the request; returns the result, with progress reported meanwhile."""
        self._start(self._read, self._process.stdout)
        self._collector = self._start(self._collect, self._process.stderr)
        self._send(request)
        try:
            return self._converse(cancelled)
        except WorkerError as error:
            if self._asked_to_stop is None:
                raise
            raise ScanInterrupted(stage=self._stage) from error
        finally:
            self._over.set()
            with suppress(queue.Empty):  # a reader may wait for a place in the queue
                while True:
                    self._messages.get_nowait()

    def _converse(self, cancelled: threading.Event) -> Any:
        last = checked = time.monotonic()
        while True:
            line: bytes | None = b""
            with suppress(queue.Empty):
                line = self._messages.get(timeout=_TICK)
            now = time.monotonic()
            if cancelled.is_set():
                raise KeyboardInterrupt
            if self._stop.is_set():
                self._ask_to_stop(now)
            if line is None:
                raise self._died()
            last = now if line else last
            # Also while messages come: one that never stops sending must not escape the limits.
            if now - checked >= _TICK:
                self._check(now, now - last)
                checked = now
            if not line:
                continue
            message = self._parse(line)
            if "progress" in message:
                self._report(message["progress"])
            elif "partial" in message:
                self._partial(message["partial"])
            elif "error" in message:
                raise self._failure(message["error"])
            else:
                return message.get("result")

    def _ask_to_stop(self, now: float) -> None:
        """Pass the wish on, once; raise if the worker cannot answer or takes too long over it."""
        if self._asked_to_stop is None:
            self._asked_to_stop = now
            # While it imports libraries, or without signals, it could not answer.
            if self._stage == STARTING or os.name != "posix":
                raise ScanInterrupted(stage=self._stage)
            self._process.send_signal(signal.SIGINT)
        if now - self._asked_to_stop > _LONGEST_FAREWELL:
            raise ScanInterrupted(stage=self._stage)

    def _start(
        self, target: Callable[[IO[bytes]], None], stream: IO[bytes] | None
    ) -> threading.Thread | None:
        if stream is None:
            return None
        thread = threading.Thread(target=target, args=(stream,), daemon=True)
        thread.start()
        return thread

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError), io.BufferedWriter(self._process.stdin) as stream:
            stream.write(json.dumps(request).encode())  # to a dead one: the reader will notice

    def _read(self, stream: IO[bytes]) -> None:
        """Lines of the worker into the queue, ``None`` at the end (or at an endless line)."""
        with suppress(OSError), io.BufferedReader(stream) as lines:  # type: ignore[type-var]
            while not self._over.is_set() and (line := lines.readline(_LONGEST_MESSAGE)):
                self._messages.put(line)
        self._messages.put(None)

    def _collect(self, stream: IO[bytes]) -> None:
        """Keep the end of what the worker prints."""
        size = 0
        with suppress(OSError), stream:
            while chunk := stream.read(4096):
                self._printed.append(chunk)
                size += len(chunk)
                while size > _KEPT_STDERR:
                    size -= len(self._printed.popleft())

    def _check(self, now: float, silence: float) -> None:
        """Raise if the worker ended, has been silent for too long or holds too much memory."""
        if self._process.poll() is not None:
            # Its end closes the channel, unless a process that it started holds it open.
            self._ended = self._ended or now
            if now - self._ended > _LAST_WORDS:
                raise self._died()
        limits = self._limits
        if limits is None:
            return
        if now - self._started > limits.cpu_time:
            raise self._out_of_time()
        # Until the first stage only our own libraries are imported, however slow the disk is.
        if silence > (max(limits.stall, _SLOW_START) if self._stage == STARTING else limits.stall):
            raise WorkerTimeoutError(
                f"No progress for {limits.stall} s; the worker process was ended. If the model is "
                "only slow, raise the limit (--limit stall=1h) or use fewer images.",
                stage=self._stage,
            )
        resident = resident_bytes(self._process.pid)
        if resident is not None and resident > limits.memory + _OWN_MEMORY:
            raise self._out_of_memory()

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line) if line.count(b",") <= _MOST_VALUES else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise WorkerCrashError("The worker process sent something odd.", stage=self._stage)
        return message

    def _report(self, progress: Any) -> None:
        match progress:
            case [str(stage), int(share) | float(share)] if share >= 0:  # NaN is not
                self._stage = printable(stage[:100])
                self._progress(self._stage, float(min(share, 1)))

    def _failure(self, error: Any) -> Exception:
        """The error that the worker's task raised."""
        match error:
            case {"kind": "memory"}:
                return self._out_of_memory()
            case {"kind": "gpu-memory", "message": str(message)}:
                return self._out_of_gpu_memory(printable(message[:300]))
            case {"kind": str(kind), "message": str(message)}:
                message = printable(message[:_LONGEST_TEXT], lines=True)
                stage = printable(str(error.get("stage") or "")[:100]) or self._stage
                known = error_class(kind)
                if known is not None:
                    return known(message, stage=stage)
                cause = f"{printable(kind[:100])}: {message}"
                details = printable(str(error.get("traceback", ""))[-_LONGEST_TEXT:], lines=True)
                return InternalError(cause, stage=self._stage, details=details)
        return WorkerCrashError("The worker process sent something odd.", stage=self._stage)

    def _out_of_memory(self) -> WorkerMemoryError:
        size = f"{self._limits.memory / 2**30:.3g} GiB" if self._limits else "this machine"
        return WorkerMemoryError(
            f"The model needs more memory than is allowed ({size}). If you expect that, raise the "
            "limit (--limit memory=16G) or use fewer images (--images-per-class).",
            stage=self._stage,
        )

    def _out_of_gpu_memory(self, reason: str) -> WorkerMemoryError:
        return WorkerMemoryError(
            f"The model needs more memory than the GPU has left ({reason}). End what else runs on "
            "it, use fewer images (--images-per-class) or fewer --jobs, or use --device cpu.",
            stage=self._stage,
        )

    def _out_of_time(self) -> WorkerTimeoutError:
        return WorkerTimeoutError(
            "The worker process used up its processor time, or has run for as long. Raise the "
            "limit (--limit cpu-time=30d) if the model is only slow.",
            stage=self._stage,
        )

    def _died(self) -> Exception:
        """What the end of the worker without a result means."""
        try:
            code = self._process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            return WorkerCrashError(
                "The worker process that ran the model closed its channel without a result. The "
                "file is hostile, or a library has a fault.",
                stage=self._stage,
            )
        if self._collector is not None:
            self._collector.join(_LAST_WORDS)
        printed = b"".join(self._printed).decode(errors="replace").strip()
        if "bad_alloc" in printed or "MemoryError" in printed:
            return self._out_of_memory()
        if code == -getattr(signal, "SIGXCPU", 0):
            return self._out_of_time()
        last = printable(printed.splitlines()[-1][:300]) if printed else "it printed nothing"
        return WorkerCrashError(
            f"The worker process that ran the model crashed ({_cause(code)}; {last}). The file is "
            "damaged or hostile, or a library has a fault: export the model again, or to another "
            "format.",
            stage=self._stage,
        )


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
