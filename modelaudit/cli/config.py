"""``modelaudit config``: which settings hold, and where they come from."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from modelaudit.cli.flags import PREFIX, RESERVED, variables
from modelaudit.cli.options import check_format
from modelaudit.cli.settings import Origin, origins
from modelaudit.config import ONLY_NAMED
from modelaudit.plain import printable


def config(
    context: typer.Context,
    format_: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> int:
    """Print every setting of every command, its value and where it comes from.

    First a flag, then the environment (MODELAUDIT_SCAN_ALPHA before MODELAUDIT_ALPHA), then
    modelaudit.toml, then the table tool.modelaudit in pyproject.toml, then the default.
    """
    check_format(format_, ("text", "json"))
    group: Any = context.find_root().command
    rows = [one for command in group.commands for one in origins(context, command)]
    unknown = _unknown_variables([v for one in rows for v in variables(one.command, one.key)])
    print(_json(rows, unknown) if format_ == "json" else _text(rows, unknown))
    return 0


def _text(rows: Sequence[Origin], unknown: Mapping[str, str]) -> str:
    lines: list[str] = []
    names = [one.key + ("*" if one.key in ONLY_NAMED else "") for one in rows]
    values = [_shown(one.value) for one in rows]
    wide, wider = max(map(len, names)), min(40, max(map(len, values)))
    command = ""
    for name, value, one in zip(names, values, rows, strict=True):
        if one.command != command:
            command = one.command
            lines += ["", f"[{command}]"]
        lines.append(f"  {name:{wide}}  {value:{wider}}  {printable(one.source)}")
    lines += ["", "* not taken from a file that was only found; name it with --config"]
    lines += [f"{name} sets nothing; {advice}" for name, advice in unknown.items()]
    return "\n".join(lines[1:])


def _json(rows: Sequence[Origin], unknown: Mapping[str, str]) -> str:
    commands: dict[str, dict[str, Any]] = {}
    for one in rows:
        value = _plain(one.value)
        commands.setdefault(one.command, {})[one.key] = {"value": value, "source": one.source}
    return json.dumps({"settings": commands, "unknown_variables": list(unknown)}, indent=2)


def _unknown_variables(known: Sequence[str]) -> dict[str, str]:
    """Variables that look like ours and set nothing, with advice."""
    given = [name for name in sorted(os.environ) if name.startswith(PREFIX)]
    unknown = [name for name in given if name not in {*known, *RESERVED}]
    close = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    return {n: f"did you mean {c[0]}?" if c else "no such flag" for n, c in close.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    if value in (None, [], ()):
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value).lower() if isinstance(value, bool) else printable(str(value))
