"""The README against the program: commands, flags, exit codes, links."""

from __future__ import annotations

import re
from pathlib import Path

import typer
import typer.main

from fixtures import benchmark
from modelaudit import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def options_of(command: str, app: typer.Typer = cli.app) -> set[str]:
    """All option names of a subcommand."""
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    return {
        name
        for parameter in parameters
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


def test_every_flag_in_the_readme_exists() -> None:
    known = {
        flag
        for name in ("scan", "screen", "evaluate", "inspect", "detectors")
        for flag in options_of(name)
    }
    for name in ("detection", "schedules", "timing"):
        known |= options_of(name, benchmark.app)
    text = re.sub(r"pip install --quiet", "", README)
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert used <= known | {"--help", "--version"}, used - known


def test_every_command_in_the_readme_exists() -> None:
    commands = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    used = set(
        re.findall(r"modelaudit\s+(scan|evaluate|inspect|detectors|[a-z]+)\s+[A-Z-]", README)
    )
    assert used <= commands
    assert {"scan", "evaluate", "inspect", "detectors"} <= commands


def test_exit_codes_are_the_programs() -> None:
    rows = dict(re.findall(r"^\| (\d) \| `([a-z-]+)` \|", README, re.MULTILINE))
    assert {verdict: int(code) for code, verdict in rows.items()} == dict(cli.EXIT_CODES)
    assert re.search(r"^\| 2 \|\s+\| error", README, re.MULTILINE)
    assert cli.EXIT_ERROR == 2


def test_links_and_paths_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
    for path in re.findall(r"fixtures/bundled/[\w./]+", README):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_ci_finds_both_commands() -> None:
    for name in ("try", "test"):
        block = re.search(rf"<!-- command: {name} -->\n```\n(.+)\n```", README)
        assert block is not None
        assert "\n" not in block.group(1)


def test_bundled_command_is_the_one_that_is_tested() -> None:
    assert "--labels fixtures/bundled/labels.txt" in README
