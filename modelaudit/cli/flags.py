"""The flags of the commands, read from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import typer.main

from modelaudit.config import Flag, Flags

PREFIX = "MODELAUDIT_"
#: Variables that mean something else than a flag of all commands.
RESERVED = frozenset(PREFIX + name for name in ("CACHE", "CONFIG", "DATA", "DEBUG", "NO_CONFIG"))


def prepared(app: typer.Typer) -> Any:
    """The click command of an app, whose flags can be set by environment variables."""
    group: Any = typer.main.get_command(app)
    for command, key, parameter in parameters(group):
        parameter.envvar = list(variables(command, key))
        parameter.show_envvar = False
    return group


def variables(command: str, key: str) -> tuple[str, ...]:
    """The environment variables of a flag, the stronger first."""
    name = key.replace("-", "_").upper()
    names = (f"{PREFIX}{command.replace('-', '_').upper()}_{name}", PREFIX + name)
    return tuple(name for name in names if name not in RESERVED)


def flags_of(group: Any) -> Flags:
    """The flags of every command of a click group."""
    flags: dict[str, dict[str, Flag]] = {name: {} for name in group.commands}
    for command, key, parameter in parameters(group):
        hints = inspect.signature(group.commands[command].callback, eval_str=True).parameters
        kind, repeatable = _kind(hints[parameter.name].annotation)
        flags[command][key] = Flag(parameter.name, kind, repeatable)
    return flags


@cache
def setting_names() -> frozenset[str]:
    """All keys that a configuration file may have at its top level, with dashes."""
    from modelaudit.cli.main import app

    flags = flags_of(typer.main.get_command(app))
    return frozenset({*flags, *(key for known in flags.values() for key in known)})


def parameters(group: Any) -> Iterator[tuple[str, str, Any]]:
    """Command, key and click's parameter of every flag; arguments are no settings."""
    for command, known in group.commands.items():
        for parameter in known.params:
            long = [name for name in parameter.opts if name.startswith("--")]
            if long and long[0] != "--help":
                yield command, long[0][2:], parameter


def _kind(annotation: Any) -> tuple[type, bool]:
    """Type of the value of a flag, or of each of its values, and whether it takes several."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not NoneType)
    if get_origin(annotation) is list:
        return _kind(get_args(annotation)[0])[0], True
    return (annotation if annotation in (bool, int, float, Path) else str), False
