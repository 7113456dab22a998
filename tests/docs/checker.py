"""What Markdown pages show, against the program: command lines, flags, exit codes, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main

from detectors import registry
from modelaudit.cli.flags import prepared
from modelaudit.cli.main import app
from modelaudit.cli.options import parse_settings
from modelaudit.exit_codes import EXIT_CODES, EXIT_ERROR, EXIT_INTERRUPTED

_FENCE = re.compile(r"^[ ]*```[^\n]*\n(.*?)^[ ]*```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(?<![\w-])(?<!from )modelaudit (?=-|[a-z])(.*)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_EXIT_CODE = re.compile(r"exit(?:s| codes?) (\d+)")
_ROW = re.compile(r"^\| (\d+) \| `([a-z-]+)` \|", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_SHELL = {"|", "||", "&", "&&", ";", ">", ">>", "<"}


def command_lines(page: str) -> Iterator[list[str]]:
    """The arguments of every ``modelaudit ...`` in the code blocks of a page."""
    for block in _FENCE.findall(page):
        # A line that ends with a backslash goes on, and so does one before a line of flags (YAML).
        joined = re.sub(r"[ ]*\\?\n\s*(?=--)|[ ]*\\\n\s*", " ", block)
        for line in _COMMAND.findall(joined):
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            arguments = list(words)
            end = next((i for i, word in enumerate(arguments) if word in _SHELL), None)
            yield arguments[:end]


def require_valid(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it.

    Raises:
        Exception: of the parser, or a ``ValueError`` or a ``UsageError``: it is not valid.
    """
    group = prepared(app)
    with group.make_context("modelaudit", list(arguments)) as root:
        start = next((i for i, one in enumerate(arguments) if one in group.commands), 0)
        name, command, rest = group.resolve_command(root, arguments[start:])
        parsed = command.make_context(name, rest, parent=root).params
    settings = parse_settings(parsed.get("set_") or [])
    for detector in {*(parsed.get("detector") or []), *settings} & set(registry.REGISTRY):
        registry.build(detector, settings.get(detector, {}))


def flags_of(*apps: typer.Typer) -> set[str]:
    """All long flags of all commands."""
    known = {"--help"}
    for one in apps:
        group: Any = typer.main.get_command(one)
        for command in [group, *group.commands.values()]:
            for parameter in command.params:
                known |= {*parameter.opts, *parameter.secondary_opts}
    return known


def flags_in(text: str) -> set[str]:
    """All long flags that a text names."""
    return set(_FLAG.findall(text))


def prose(page: str) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page)


def require_exit_codes(page: str) -> None:
    """The exit codes that a page names are the program's, with their verdicts in tables."""
    for code, verdict in _ROW.findall(page):
        assert EXIT_CODES.get(verdict) == int(code), (code, verdict)
    named = {int(code) for code in _EXIT_CODE.findall(page)}
    assert named <= {*EXIT_CODES.values(), EXIT_ERROR, EXIT_INTERRUPTED}, named


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    links = _LINK.findall(prose(page.read_text("utf-8")))
    return [one for one in links if ":" not in one and not (page.parent / one).exists()]
