"""Long scans on the command line: a time budget, checkpoints, interruptions."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modelaudit.checkpoint import Checkpoint

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_ENDING = b"\nmodelaudit: interrupted; writing what is known. Once more ends it at once.\n"


@dataclass(frozen=True)
class Budget:
    """How long a scan may take."""

    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Time after which the rest of a scan is left out, and listed: 90s, 10m, 2h. Those "
            "of --fast run first.",
            metavar="TIME",
        ),
    ] = None

    @property
    def seconds(self) -> int | None:
        """The time budget; raises UsageError if it is none."""
        from modelaudit.isolation.limits import seconds_of

        return None if self.time_budget is None else seconds_of("--time-budget", self.time_budget)


@dataclass(frozen=True)
class Length(Budget):
    """The same, and where it goes on after an interruption."""

    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder where an unfinished scan keeps what its detectors found, for the next "
            "one; else $MODELAUDIT_CACHE or the user's cache folder.",
            metavar="DIR",
        ),
    ] = None
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep that, and go on from it.")
    ] = True

    def checkpoint(self, model: Path, quiet: bool) -> Checkpoint | None:
        """Where a scan of ``model`` goes on; ``None`` where nothing is kept."""
        from modelaudit.checkpoint import Checkpoint
        from modelaudit.files import cache_directory

        def note(text: str) -> None:
            if not quiet:
                print(f"modelaudit: note: {text}.", file=sys.stderr)

        folder = self.cache_dir or cache_directory()
        return Checkpoint.of_model(folder, model, note) if self.cache else None

    @property
    def after_interruption(self) -> str:
        """What to do after an interrupted scan."""
        if self.cache:
            return "interrupted; the same command goes on after the detectors that finished."
        return "interrupted; with --no-cache nothing was kept to go on from."


@contextmanager
def first_interrupt() -> Iterator[threading.Event]:
    """Meanwhile the first signal to end sets the event, and a second one does what it always did.

    Signals that are ignored stay ignored. Where signals cannot be handled, because this is not the
    main thread, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = {number: old for number, old in before.items() if callable(old)}

    def restore() -> None:
        for number, old in handled.items():
            signal.signal(number, old)

    def note(number: int, frame: object) -> None:
        restore()
        stop.set()
        os.write(2, _ENDING)  # a stream must not be used here: it may be in use

    for number in handled:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
