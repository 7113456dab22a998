"""Calls of the Linux kernel that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_NO_NEW_PRIVS = 38


def libc(needed: str) -> ctypes.CDLL:
    """The C library.

    Raises:
        OSError: this is no Linux, so there is no ``needed``.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"{sys.platform} has no {needed}")
    return ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """What a call returned; raises ``OSError`` with the call's own reason where it failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def gain_no_rights(library: ctypes.CDLL) -> None:
    """This process and its children never get more rights, whatever program they start."""
    check(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
