"""What a worker process may use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from modelaudit.errors import UsageError

#: How the report of a limit starts that the system did not offer.
NOT_LIMITED = "not limited"

_GIB = 2**30
_LARGEST = 2**60  # the system counts with 64 bits
_SHARE_OF_MEMORY = 0.8
_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": _GIB, "t": 2**40}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIMES = "90s, 15m or 2h"


def total_memory() -> int:
    """Bytes of memory that this machine has, or that its control group allows."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return 16 * _GIB
    try:
        group = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return machine
    return min(machine, group)


@dataclass(frozen=True)
class Limits:
    """Limits of a worker process.

    Attributes:
        memory: bytes beyond what the program itself needs; 80 % of the machine's by default.
        cpu_time: seconds of processor time, over all cores, and of wall-clock time.
        stall: seconds of wall-clock time that may pass without any progress.
        open_files: open files at a time.
        file_size: bytes of the largest file that it may write.
    """

    memory: int = int(_SHARE_OF_MEMORY * total_memory())
    cpu_time: int = 7 * 86400
    stall: int = 900
    open_files: int = 512
    file_size: int = 64 * 2**20

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 1 <= getattr(self, field.name) <= _LARGEST:
                raise UsageError(
                    f"--limit {option_name(field.name)} must be at least 1 and at most {_LARGEST}."
                )

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Limits:
        """``NAME=VALUE`` texts: sizes like ``8G``, times like ``90s``, ``15m``, ``2h``.

        Raises:
            UsageError: an unknown name or a value of another form.
        """
        limits = cls()
        known = {option_name(field.name): field.name for field in fields(cls)}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise UsageError(
                    f"--limit {text}: expected NAME=VALUE with a NAME out of {', '.join(known)}."
                )
            limits = replace(limits, **{known[name]: _number(text, known[name], value)})
        return limits


def option_name(field: str) -> str:
    """A field as it is written on the command line."""
    return field.replace("_", "-")


def seconds_of(option: str, value: str) -> int:
    """``90s``, ``15m``, ``2h`` or ``1d`` in seconds.

    Args:
        option: what the value is given with, for the message.

    Raises:
        UsageError: ``value`` has another form, or is 0.
    """
    seconds = _in_units(value, _TIME_UNITS)
    if not seconds:
        raise UsageError(f"{option} {value}: expected a time such as {_TIMES}.")
    return seconds


def _number(text: str, field: str, value: str) -> int:
    times = field in ("cpu_time", "stall")
    units = _TIME_UNITS if times else _SIZE_UNITS if field != "open_files" else {"": 1}
    number = _in_units(value, units)
    if number is None:
        example = _TIMES if times else "64" if field == "open_files" else "512M or 8G"
        raise UsageError(f"--limit {text}: expected a value such as {example}.")
    return number


def _in_units(value: str, units: Mapping[str, int]) -> int | None:
    """A number with one of the units after it; ``None`` for another text."""
    match = re.fullmatch(r"(\d+)([a-z]?)(?:i?b)?", value.strip().lower())
    return int(match[1]) * units[match[2]] if match and match[2] in units else None
