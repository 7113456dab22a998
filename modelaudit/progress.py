"""Progress with an ETA, on stderr, for people only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

#: For the names of what runs, so that the bar has room beside them.
_NARROW = Column(max_width=36, no_wrap=True, overflow="ellipsis")


def _bars(quiet: bool) -> Progress:
    """A progress display that stays silent when stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=_NARROW),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )


@contextmanager
def stage_progress(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Shows the stages of a scan one after another.

    A stage that begins with 0 has a bar of its own; one that begins later goes on with the last.
    """
    with _bars(quiet) as bars:
        task = bars.add_task("starting", total=1.0)
        current = ""

        def show(stage: str, share: float) -> None:
            nonlocal current
            if stage != current and not share:
                bars.reset(task, total=1.0)
            current = stage
            bars.update(task, completed=share, description=stage)

        yield show


@contextmanager
def fleet_progress(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Shows how many models of a collection are done."""
    with _bars(quiet) as bars:
        task = bars.add_task("starting")

        def show(done: int, total: int, name: str) -> None:
            bars.update(task, completed=done, total=total, description=f"{done}/{total} {name}")

        yield show
