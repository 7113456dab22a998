"""Start a worker process, watch it, and end it: the parent's side of the isolation.

The worker runs a hostile model, so nothing that it sends is trusted further than its type, and
whatever happens to it, this process lives on, the worker and its folder do not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelaudit.isolation.conversation import Conversation
from modelaudit.isolation.folder import remove_folder
from modelaudit.isolation.limits import Limits
from modelaudit.stages import StageProgress

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from modelaudit.isolation.worker import main; main()"
)
#: Nothing is fetched, and torch compiles no GPU kernels of its own, for which it would write files.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TORCH_DISABLE_NATIVE_JIT": "1"}


def run_task(
    task: str,
    payload: Mapping[str, Any],
    limits: Limits | None,
    progress: StageProgress | None = None,
    threads: int | None = None,
    cancelled: threading.Event | None = None,
    partial: Callable[[Any], None] | None = None,
    stop: threading.Event | None = None,
    device: str = "cpu",
    gpu: str | None = None,
) -> Any:
    """Do a task of :data:`modelaudit.isolation.tasks.TASKS` in a worker process.

    Args:
        payload: plain values, with absolute paths: the worker has a working folder of its own.
        limits: ``None`` gives the worker all that this process has.
        threads: of torch, in the worker.
        cancelled: when it is set, the worker is ended and ``KeyboardInterrupt`` raised.
        partial: called with what the task found before its result, as it came.
        stop: when it is set, the worker is asked to end with what it has.
        device: that the task may use: ``auto``, ``cpu`` or ``cuda``.
        gpu: the only one that the worker sees, as ``CUDA_VISIBLE_DEVICES`` names it.

    Raises:
        ModelAuditError: as the task raised it, or a ``WorkerError`` when the worker crashed, hung
            or reached a limit; its ``stage`` says where. ``ScanInterrupted`` when it was asked to
            end, and had nothing or took too long.
    """
    request = {
        "task": task,
        "payload": payload,
        "limits": None if limits is None else dict(vars(limits)),
        "threads": threads,
        "device": device,
    }
    with _own_folder() as folder, _started(folder, gpu) as process:
        worker = Conversation(
            process,
            limits,
            progress or (lambda stage, share: None),
            partial or (lambda value: None),
            stop or threading.Event(),
        )
        return worker.result_of(request, cancelled or threading.Event())


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, whatever the worker put into it."""
    folder = Path(tempfile.mkdtemp(prefix="modelaudit-"))
    try:
        yield folder
    finally:
        remove_folder(folder)


@contextmanager
def _started(folder: Path, gpu: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in ``folder``, in a session of its own: Ctrl-C is the parent's business."""
    path = [os.path.abspath(entry) for entry in sys.path]
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("MODELAUDIT_DEBUG") else subprocess.PIPE,
        bufsize=0,  # a buffer has a lock, which a reader holds as long as it waits
        cwd=folder,
        env={**os.environ, **_ENVIRONMENT, **seen, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started.

    Its output is closed by the threads that read it: a process that escaped the kill may hold the
    other end, and this one must not wait for it.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # Windows, or already gone
        process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()
