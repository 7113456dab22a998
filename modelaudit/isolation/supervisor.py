"""Start a worker process, watch it, and end it: the parent's side of the isolation.

The worker runs a hostile model, so nothing that it sends is trusted further than its type, and
whatever happens to it, this process lives on, the worker and its folder do not.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from modelaudit.errors import (
    InternalError,
    WorkerCrashError,
    WorkerMemoryError,
    WorkerTimeoutError,
    error_class,
)
from modelaudit.isolation.limits import Limits
from modelaudit.isolation.resident import resident_bytes

#: Called with a stage's name and the share of it that is done, in [0, 1].
StageProgress = Callable[[str, float], None]

_LONGEST_MESSAGE = 256 * 2**20
_KEPT_STDERR = 64 * 2**10
_TICK = 0.2
# What the program itself may hold beside the model.
_OWN_MEMORY = 2**30
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from modelaudit.isolation.worker import main; main()"
)


def run_task(
    task: str,
    payload: Mapping[str, Any],
    limits: Limits | None,
    progress: StageProgress | None = None,
    threads: int | None = None,
    cancelled: threading.Event | None = None,
) -> Any:
    """Do a task of :data:`modelaudit.isolation.tasks.TASKS` in a worker process.

    Args:
        payload: plain values, with absolute paths: the worker has a working folder of its own.
        limits: ``None`` gives the worker all that this process has.
        threads: of torch, in the worker.
        cancelled: when it is set, the worker is ended and ``KeyboardInterrupt`` raised.

    Raises:
        ModelAuditError: as the task raised it, or a ``WorkerError`` when the worker crashed, hung
            or reached a limit; its ``stage`` says where.
    """
    request = {
        "task": task,
        "payload": payload,
        "limits": None if limits is None else dict(vars(limits)),
        "threads": threads,
    }
    with _own_folder() as folder, _started(folder) as process:
        worker = _Worker(process, limits, progress or (lambda stage, share: None))
        return worker.result_of(request, cancelled or threading.Event())


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, whatever the worker put into it."""
    with tempfile.TemporaryDirectory(prefix="modelaudit-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in ``folder``, in a session of its own: Ctrl-C is the parent's business."""
    path = [os.path.abspath(entry) for entry in sys.path]
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("MODELAUDIT_DEBUG") else subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # Windows, or already gone
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):  # what was not yet written to a dead worker
                stream.close()


class _Worker:
    """The conversation with one worker process."""

    def __init__(
        self, process: subprocess.Popen[bytes], limits: Limits | None, progress: StageProgress
    ) -> None:
        self._process = process
        self._limits = limits
        self._progress = progress
        self._stage = "starting"
        self._printed: deque[bytes] = deque()
        self._messages: queue.Queue[bytes | None] = queue.Queue()

    def result_of(self, request: Mapping[str, Any], cancelled: threading.Event) -> Any:
        """Send the request; returns the result, with progress reported meanwhile."""
        for target, stream in ((self._read, self._process.stdout), (self._collect, self._stderr)):
            if stream is not None:
                threading.Thread(target=target, args=(stream,), daemon=True).start()
        self._send(request)
        last = time.monotonic()
        while True:
            try:
                line = self._messages.get(timeout=_TICK)
            except queue.Empty:
                if cancelled.is_set():
                    raise KeyboardInterrupt from None
                self._check(time.monotonic() - last)
                continue
            if line is None:
                raise self._died()
            last = time.monotonic()
            message = self._parse(line)
            if "progress" in message:
                self._report(message["progress"])
            elif "error" in message:
                raise self._failure(message["error"])
            else:
                return message.get("result")

    @property
    def _stderr(self) -> BinaryIO | None:
        return self._process.stderr  # type: ignore[return-value]

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it died already, which the reader will notice
            self._process.stdin.write(json.dumps(request).encode())
            self._process.stdin.close()

    def _read(self, stream: BinaryIO) -> None:
        """Lines of the worker into the queue, ``None`` at the end (or at an endless line)."""
        with suppress(OSError, ValueError):  # closed while reading
            while line := stream.readline(_LONGEST_MESSAGE):
                self._messages.put(line)
        self._messages.put(None)

    def _collect(self, stream: BinaryIO) -> None:
        """Keep the end of what the worker prints."""
        size = 0
        with suppress(OSError, ValueError):  # closed while reading
            while chunk := stream.read1(4096):  # type: ignore[attr-defined]
                self._printed.append(chunk)
                size += len(chunk)
                while size > _KEPT_STDERR:
                    size -= len(self._printed.popleft())

    def _check(self, silence: float) -> None:
        """Raise if the worker has been silent for too long or holds too much memory."""
        limits = self._limits
        if limits is None:
            return
        if silence > limits.stall:
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
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise WorkerCrashError("The worker process sent something odd.", stage=self._stage)
        return message

    def _report(self, progress: Any) -> None:
        match progress:
            case [str(stage), int(share) | float(share)]:
                self._stage = stage[:100]
                self._progress(self._stage, min(max(float(share), 0.0), 1.0))

    def _failure(self, error: Any) -> Exception:
        """The error that the worker's task raised."""
        match error:
            case {"kind": "memory"}:
                return self._out_of_memory()
            case {"kind": str(kind), "message": str(message)}:
                known = error_class(kind)
                if known is not None:
                    return known(message, stage=self._stage)
                details = str(error.get("traceback", ""))
                return InternalError(f"{kind}: {message}", stage=self._stage, details=details)
        return WorkerCrashError("The worker process sent something odd.", stage=self._stage)

    def _out_of_memory(self) -> WorkerMemoryError:
        size = f"{self._limits.memory / 2**30:.3g} GiB" if self._limits else "this machine"
        return WorkerMemoryError(
            f"The model needs more memory than is allowed ({size}). If you expect that, raise the "
            "limit (--limit memory=16G) or use fewer images (--images-per-class).",
            stage=self._stage,
        )

    def _died(self) -> Exception:
        """What the end of the worker without a result means."""
        self._process.wait()
        code = self._process.returncode
        printed = b"".join(self._printed).decode(errors="replace").strip()
        if "bad_alloc" in printed or "MemoryError" in printed:
            return self._out_of_memory()
        if code == -getattr(signal, "SIGXCPU", 0):
            return WorkerTimeoutError(
                "The worker process used up its processor time. Raise the limit (--limit "
                "cpu-time=30d) if the model is only slow.",
                stage=self._stage,
            )
        last = printed.splitlines()[-1][:300] if printed else "it printed nothing"
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
