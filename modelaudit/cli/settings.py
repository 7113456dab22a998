"""Settings of the command line from files and the environment.

A value is taken from the first place that has one: the flag; the environment variable of the
command (``MODELAUDIT_SCAN_ALPHA``), then that of all commands (``MODELAUDIT_ALPHA``);
``modelaudit.toml``; ``pyproject.toml`` (:mod:`modelaudit.config`); the default. Several values of a
variable are separated by spaces, paths as in ``PATH``. click knows both mechanisms (``envvar``,
``default_map``), so no option has code of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from modelaudit.cli.flags import flags_of, parameters, variables
from modelaudit.config import Settings, read_settings
from modelaudit.errors import UsageError
from modelaudit.plain import printable


@dataclass
class Session:
    """What a run of the command line knows of files: click's ``obj``.

    Attributes:
        help: whether only help is asked for, which a bad file must not prevent.
        settings: from files.
    """

    help: bool = False
    settings: Settings = field(default_factory=dict)


_FLAG, _DEFAULT, _NOT_SET = "flag", "default", "not set"


@dataclass(frozen=True)
class Origin:
    """A value of a flag, and where it comes from.

    Attributes:
        source: ``flag``, an environment variable, a file, ``default``, or ``not set`` where a
            command requires the flag.
    """

    command: str
    key: str
    value: Any
    source: str

    @property
    def usual(self) -> bool:
        """Whether it comes from neither a file nor the environment."""
        return self.source in (_FLAG, _DEFAULT, _NOT_SET)


def configure(context: typer.Context, named: Path | None, ignored: bool) -> None:
    """Read the settings, for the commands that run in ``context``.

    Args:
        named: the value of ``--config``.
        ignored: that of ``--no-config``.

    Raises:
        UsageError: both are given; or as :func:`modelaudit.config.read_settings`.
    """
    if named is not None and ignored:
        raise UsageError("--config and --no-config exclude each other; give one of them.")
    session = context.ensure_object(Session)
    if ignored or session.help:
        return
    flags = flags_of(context.command)
    settings = session.settings = read_settings(flags, named, Path.cwd())
    context.default_map = {
        command: {flags[command][key].parameter: one.value for key, one in values.items()}
        for command, values in settings.items()
    }
    if named is None:
        _tell(settings.get(context.invoked_subcommand or "", {}))


def _tell(settings: Mapping[str, Any]) -> None:
    """Say on stderr what files that were only found have set, even with ``--quiet``."""
    for file in dict.fromkeys(one.file for one in settings.values()):
        keys = ", ".join(key for key, one in settings.items() if one.file == file)
        print(f"modelaudit: settings from {printable(str(file))}: {keys}", file=sys.stderr)


def own_origins(context: typer.Context) -> Iterator[Origin]:
    """Every flag of the command that runs in ``context``."""
    return origins(context, context.info_name or "", context)


def origins(context: typer.Context, command: str, parsed: Any = None) -> Iterator[Origin]:
    """Every flag of a command with its value and where it comes from.

    Args:
        parsed: the command's own context; ``None`` parses no arguments.
    """
    group: Any = context.find_root().command
    if parsed is None:
        root = context.find_root()
        parsed = group.commands[command].make_context(
            command, [], parent=root, resilient_parsing=True
        )
    settings = context.find_root().ensure_object(Session).settings
    for name, key, parameter in parameters(group):
        if name == command:
            source = parsed.get_parameter_source(parameter.name)
            value, kind = parsed.params.get(parameter.name), source.name if source else "DEFAULT"
            yield Origin(command, key, value, _source(kind, parameter, settings, command, key))


def _source(kind: str, parameter: Any, settings: Settings, command: str, key: str) -> str:
    """In words, for the name of one of click's ``ParameterSource``."""
    if kind == "ENVIRONMENT":
        return next(name for name in variables(command, key) if os.environ.get(name))
    if kind == "DEFAULT_MAP":
        return str(settings[command][key].file)
    if kind == "DEFAULT":
        return _NOT_SET if parameter.required else _DEFAULT
    return _FLAG


def origin_of_error(error: Exception) -> str:
    """Where the value comes from that click complains of; empty if from a flag."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or parameter is None or context.parent is None:
        return ""
    key = next((k for c, k, p in parameters(context.parent.command) if p is parameter), "")
    found = [one for one in own_origins(context) if one.key == key]
    if not found or found[0].usual:
        return ""
    return f"modelaudit: this value of --{key} comes from {printable(found[0].source)}."
