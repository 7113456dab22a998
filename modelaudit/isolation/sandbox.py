"""Give up rights before a hostile file is opened.

Everything here runs in the worker process, before torch is imported: a process with several
threads cannot enter a user namespace. What the system does not offer is left out, and said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelaudit.isolation.landlock import forbid_writes_outside
from modelaudit.isolation.limits import NOT_LIMITED, Limits
from modelaudit.isolation.linux import check, gain_no_rights, libc

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
# A worker that used up its time is told first (SIGXCPU) and killed this many seconds later.
_CPU_GRACE = 5


def confine(limits: Limits, folder: Path) -> dict[str, str]:
    """Apply what the system offers to this process.

    Args:
        limits: all but the memory; see :func:`limit_memory`.
        folder: the only one in which files may be written.

    Returns:
        What was done, for the report: a sentence each for ``limits``, ``network`` and ``files``.
    """
    return {
        "limits": _attempt(lambda: _limit_resources(limits), "set by the system"),
        "network": _attempt(_leave_network, "none"),
        "files": _attempt(lambda: forbid_writes_outside(folder), "writes in an own folder only"),
    }


def limit_memory(budget: int, device: str) -> str:
    """Limit the address space to what is in use now and ``budget`` bytes more.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``, that the model will run on. A CUDA context reserves
            far more addresses than memory, so on a GPU only the supervisor's watch over the
            resident memory holds.
    """
    return _attempt(lambda: _limit_address_space(budget, device), f"{budget >> 20} MiB")


def _attempt(action: Callable[[], None], done: str) -> str:
    try:
        action()
    except (OSError, ImportError, AttributeError, ValueError) as error:
        return f"{NOT_LIMITED}: {error}"
    return done


def _limit_resources(limits: Limits) -> None:
    import resource  # POSIX only

    # Where memory runs out, the system shall end this process, not the one that watches it.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

    def lower(kind: int, soft: int, hard: int) -> None:
        _, ceiling = resource.getrlimit(kind)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))

    lower(resource.RLIMIT_CORE, 0, 0)
    lower(resource.RLIMIT_CPU, limits.cpu_time, limits.cpu_time + _CPU_GRACE)
    lower(resource.RLIMIT_NOFILE, limits.open_files, limits.open_files)
    lower(resource.RLIMIT_FSIZE, limits.file_size, limits.file_size)


def _limit_address_space(budget: int, device: str) -> None:
    import resource

    torch = sys.modules.get("torch")
    # Asked before the limit holds: under it CUDA finds no GPU, and the scan would use the CPU.
    if device != "cpu" and torch and torch.cuda.is_available():
        raise OSError("addresses are not memory with CUDA; the resident memory is watched")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + budget, used + budget))


def _leave_network() -> None:
    """Enter an empty network namespace, for which a user without rights needs a user namespace."""
    library = libc("namespaces")
    check(library.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    gain_no_rights(library)
    user, group = os.getuid(), os.getgid()
    check(library.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
    # The same user inside as outside, so that the files keep their owner.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
