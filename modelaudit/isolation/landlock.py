"""Linux Landlock: a process forbids itself to write files, without any privilege.

Interface: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE = 1 << 1
# Remove and make files and folders of all kinds: bits 4 to 12 since the first version.
_CHANGE_FOLDERS = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # since versions 2 and 3
# Devices, such as a GPU, and their files in memory are not the user's files.
_ALWAYS_WRITABLE = (Path("/dev"), Path("/proc"))


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def forbid_writes_outside(folder: Path) -> None:
    """From now on this process and its children write below ``folder`` (and to devices) only.

    Raises:
        OSError: the system has no Landlock.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"{sys.platform} has no Landlock")
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        result = int(libc.syscall(*arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    access = _WRITE_FILE | _CHANGE_FOLDERS
    access |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = _RulesetAttributes(access)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for path in (folder, *_ALWAYS_WRITABLE):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathBeneath(access, opened)
                call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                os.close(opened)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
