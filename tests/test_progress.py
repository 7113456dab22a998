"""Progress for people: names are shown as they are."""

from __future__ import annotations

import io
import sys

import pytest

from modelaudit.progress import fleet_progress, stage_progress


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_models_name_is_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")  # on a dumb one rich shows no progress
    with fleet_progress(quiet=False) as show:
        show(1, 2, "odd[/name]")
    assert "odd[/name]" in terminal.getvalue()


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with stage_progress(quiet=True) as show:
        show("loading", 0.5)
    assert "loading" not in terminal.getvalue()
