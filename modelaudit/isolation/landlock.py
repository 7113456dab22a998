"""Linux Landlock: a process forbids itself to write files and to signal others, without privilege.

Interface: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from modelaudit.isolation.linux import check, gain_no_rights, libc

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

_WRITE_FILE = 1 << 1
# Remove and make files and folders of all kinds: bits 4 to 12 since the first version.
_CHANGE_FOLDERS = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # since versions 2 and 3
# Abstract sockets and signals of processes that are not confined alike; since version 6.
_SCOPED = 1 << 0 | 1 << 1
# The rest of /dev and /proc is dangerous: terminals, shared memory that stays, and, for root, disks
# and the kernel's settings, among them which program is run outside when a process crashes.
_ALWAYS_WRITABLE = (Path("/dev/null"), Path("/proc/self"))
_ACCELERATORS = ("accel", "dri", "dxg", "kfd", "nvgpu", "nvhost", "nvidia", "nvmap")
_MEMORY_OF_ACCELERATORS = Path("/dev/shm")


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def forbid_writes_outside(folder: Path) -> None:
    """From now on this process and its children write below ``folder`` (and to accelerators) only.

    Where the system can do that, they also signal no other process.

    Raises:
        OSError: the system has no Landlock.
    """
    library = libc("Landlock")

    def call(*arguments: object) -> int:
        return check(int(library.syscall(*arguments)))

    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    access = _WRITE_FILE | _CHANGE_FOLDERS
    access |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = _RulesetAttributes(access, 0, _SCOPED if version >= 6 else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for path in (folder, *_ALWAYS_WRITABLE, *_accelerators()):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = access if path.is_dir() else access & (_WRITE_FILE | _TRUNCATE)
                rule = _PathBeneath(allowed, opened)
                call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                os.close(opened)
        gain_no_rights(library)
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _accelerators() -> list[Path]:
    found = [path for path in Path("/dev").iterdir() if path.name.startswith(_ACCELERATORS)]
    return (
        [*found, _MEMORY_OF_ACCELERATORS] if found and _MEMORY_OF_ACCELERATORS.exists() else found
    )
