"""How much memory a process holds, as far as the system tells without a library."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int | None:
    """Anonymous memory that process ``pid`` holds, in bytes; ``None`` where it is not known.

    Pages of mapped files are left out: the libraries are no fault of the model.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
