"""How many images a model is given at once, where memory is short."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from modelaudit.errors import is_out_of_memory

_Result = TypeVar("_Result")


class BatchSize:
    """The number of images in a batch, which halves when memory runs out.

    Attributes:
        images: at least 1.
        halved: whether memory has run out before.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.halved = False

    def within_memory(self, work: Callable[[], _Result]) -> _Result:
        """What ``work`` returns, which must read ``images`` anew and leave nothing half done.

        Raises:
            RuntimeError, MemoryError: memory runs out with one image, too.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if self.images == 1 or not is_out_of_memory(error):
                    raise
            # Only here the error has let go of what the failed attempt had in memory.
            self.images //= 2
            self.halved = True


def room() -> float:
    """Bytes that this process may still take under its limit; infinite where none is known."""
    try:
        import resource  # POSIX only

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        used = pages * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError, AttributeError):
        return math.inf
    return math.inf if limit == resource.RLIM_INFINITY else float(limit - used)
