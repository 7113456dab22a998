"""Run the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def modelaudit(*arguments: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """``modelaudit ARGUMENTS``, with its output and exit code."""
    return subprocess.run(
        [sys.executable, "-m", "modelaudit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )
