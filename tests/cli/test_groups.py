"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from modelaudit.cli.groups import Running, Search, Subject, expanded, scan_options
from modelaudit.errors import UsageError


def called(*arguments: str) -> tuple[Subject, Search, Running, str]:
    """What a command gets that takes three groups and an option of its own."""
    got: list[tuple[Subject, Search, Running, str]] = []

    def command(subject: Subject, search: Search, *, own: str = "x", running: Running) -> int:
        """Do nothing."""
        got.append((subject, search, running, own))
        return 0

    app = typer.Typer()
    app.command()(expanded(command))
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return got[0]


def test_groups_are_filled_from_their_options() -> None:
    arguments = ["m.onnx", "--clean-dir", "d", "--mean", "0.5", "--std", "1", "--set", "a.b=1"]
    arguments += ["--own", "y", "--alpha", "0.1", "--no-isolation", "--image-size", "4x6"]
    subject, search, running, own = called(*arguments)
    assert (subject.model, subject.clean_dir) == (Path("m.onnx"), Path("d"))
    assert (own, running.limits) == ("y", None)
    options = scan_options(subject, search, examine=("strip",))
    assert (options.alpha, options.image_size, options.examine) == (0.1, (4, 6), ("strip",))
    assert options.settings == {"a": {"b": "1"}}
    assert options.preset == "default"


def test_defaults_are_those_of_the_groups() -> None:
    subject, search, running, own = called("m.onnx", "--clean-dir", "d")
    assert (subject, own) == (Subject(Path("m.onnx"), Path("d")), "x")
    assert (search, running) == (Search(), Running())


def test_exclusive_options_of_the_same_place_are_an_error() -> None:
    _, search, _, _ = called("m.onnx", "--clean-dir", "d", "--fast", "--thorough")
    with pytest.raises(UsageError, match="exclude each other"):
        _ = search.preset
