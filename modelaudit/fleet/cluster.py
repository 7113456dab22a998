"""The Ray cluster that a fleet is scanned on. Ray itself is imported when it is asked for."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from modelaudit.errors import UsageError, first_line

INSTALL = "pip install 'modelaudit-backdoor[ray]'"
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class RayOptions:
    """Which Ray cluster, and what each scan takes of it.

    Attributes:
        address: ``auto`` for the one that runs here or that ``RAY_ADDRESS`` names, else one that
            is started here for the time of the scans; ``local`` for the latter always;
            ``HOST:PORT`` or ``ray://HOST:PORT``.
        cpus: cores of each scan.
        gpus: GPUs of each scan, or a share of one; ``None`` is 1 if scans use a GPU, else 0.
        retries: how often a scan is started again after its node or its process died.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise UsageError(f"At least 1 core is needed for each scan, not {self.cpus}.")
        if self.gpus is not None and not _is_share_or_count(self.gpus):
            raise UsageError(
                f"GPUs of each scan: {self.gpus}; expected a share from 0 to 1 or a whole number."
            )


def _is_share_or_count(gpus: float) -> bool:
    return 0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())


def import_ray() -> Any:
    """The module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError(f"--ray needs Ray, which is not installed here: {INSTALL}") from error


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """A connection for the time of the scans; one that there is already is left as it is.

    Meanwhile what is printed goes to stderr: Ray reports the death of a node on stdout.

    Raises:
        UsageError: there is no cluster at that address.
    """
    with redirect_stdout(sys.stderr):
        if ray.is_initialized():
            yield
            return
        _connect(ray, address)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if ":" in address:
        _require_answer(address)
    # Ray sends statistics home unless it is told not to; an audit is nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=None if address == "auto" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="WARNING",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray {address}: no Ray cluster can be reached there ({first_line(error)}). Start "
            "one with: ray start --head"
        ) from error


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: nobody answers there ({first_line(error)}). Check the address; "
            "`ray start --head` starts a cluster and prints it."
        ) from error


def gpus_of_each(ray: Any, options: RayOptions, device: str) -> float:
    """GPUs that each scan takes: none on a cluster without.

    Args:
        device: as in :class:`modelaudit.options.ScanOptions`.

    Raises:
        UsageError: no node has what a scan needs, so that its task would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {kind: max((n.get(kind, 0) for n in nodes), default=0) for kind in ("CPU", "GPU")}
    if device == "cpu" or (device == "auto" and not most["GPU"]):
        gpus = 0.0
    else:
        gpus = 1.0 if options.gpus is None else options.gpus
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda with --ray-gpus 0: Ray would hide every GPU.")
    for kind, needed in (("CPU", options.cpus), ("GPU", gpus)):
        if needed > most[kind]:
            raise UsageError(
                f"Each scan needs {needed:g} {kind}, but no node of the Ray cluster has more than "
                f"{most[kind]:g}. Start such a node, or ask for less (--ray-cpus, --ray-gpus)."
            )
    return gpus
