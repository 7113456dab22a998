"""Limits as they are written on the command line."""

from __future__ import annotations

import pytest

from modelaudit.errors import UsageError
from modelaudit.isolation.limits import Limits, total_memory


def test_sizes_and_times_have_units() -> None:
    limits = Limits.parse(
        ["memory=2G", "cpu-time=90", "stall=15m", "file-size=3MiB", "open-files=9"]
    )
    assert limits == Limits(2 * 2**30, 90, 900, 9, 3 * 2**20)
    assert Limits.parse(["memory=2g", "memory=1K"]).memory == 1024


def test_the_default_leaves_memory_to_the_machine() -> None:
    assert 0 < Limits().memory < total_memory()


@pytest.mark.parametrize(
    "text", ["memory", "memory=", "memory=-1", "memory=2h", "stall=2G", "stall=0", "disk=1G", "=1"]
)
def test_other_texts_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--limit"):
        Limits.parse([text])
