"""The pages of the commands and their exit codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelaudit.cli.flags import flags_of, prepared
from modelaudit.cli.main import app
from modelaudit.config import Flag
from modelaudit.exit_codes import EXIT_CODES, EXIT_ERROR, EXIT_INTERRUPTED
from tests.docs.markdown import code, plain, table

_EXIT_CODES = re.compile(r"Exit codes(: |, )(.*)", re.DOTALL)
_VALUES = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
_MEANINGS = {
    "no-backdoor-found": "no evidence of the attacks that were looked for",
    "backdoored": "a class needs an abnormally small change",
    "inconclusive": "the scan would prove nothing; the report says why",
}
_SETTINGS = """\
Every flag can also be set [in a file or by an environment variable](environment.md); `modelaudit
config` shows what is set, and where.
"""
_NO_CRASH = """\
An error is never 0, 1 or 3: no crash can be taken for a verdict. (With `--exit-zero`, or a
`--fail-on` that leaves `error` out, a model that could not be scanned exits 0; wrong usage and
faults of the program stay 2.) A finding that a waiver covers exits 0.
"""


def commands_page() -> str:
    """Every command with its flags."""
    group = prepared(app)
    flags = flags_of(group)
    parts = ["# Commands\n", _SETTINGS, "## modelaudit\n", plain(group.help) + "\n"]
    parts += [_flags(group.params, {})]
    for name, command in group.commands.items():
        parts += [f"## modelaudit {name}\n", *_paragraphs(command.help), _usage(name, command)]
        parts += [_flags(command.params, flags[name])]
    return "\n".join(part for part in parts if part)


def exit_codes_page() -> str:
    """What every exit code means, for a scan and for the other commands."""
    verdicts = {number: (code(name), _MEANINGS[name]) for name, number in EXIT_CODES.items()}
    meaning = {
        **verdicts,
        EXIT_ERROR: ("error", "wrong usage, unreadable or unsupported input, or a fault"),
        EXIT_INTERRUPTED: ("interrupted", "Ctrl-C, SIGTERM or SIGHUP"),
    }
    rows = [(str(number), *meaning[number]) for number in sorted(meaning)]
    parts = ["# Exit codes\n", "## modelaudit scan\n", table(("code", "verdict", "meaning"), rows)]
    said = [(code(name), _exit_codes(one.help)) for name, one in prepared(app).commands.items()]
    parts += [_NO_CRASH, "## By command\n", table(("command", "exit codes"), said)]
    return "\n".join(parts)


def _exit_codes(text: str | None) -> str:
    """What a help says of exit codes."""
    found = _EXIT_CODES.search(inspect.cleandoc(text or ""))
    return plain(found[2]) if found else f"0 done, {EXIT_ERROR} error."


def _paragraphs(text: str | None) -> list[str]:
    return [plain(one) + "\n" for one in inspect.cleandoc(text or "").split("\n\n") if one]


def _usage(name: str, command: Any) -> str:
    """The command line with all that is required."""
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    required = [f"{p.opts[0]} {p.metavar}" for p in command.params if _is_flag(p) and p.required]
    return f"```\n{' '.join(['modelaudit', name, *arguments, *required])}\n```\n"


def _flags(parameters: Sequence[Any], flags: Mapping[str, Flag]) -> str:
    known = [one for one in parameters if _is_flag(one)]
    rows = [(_names(one), _value(one, flags), _default(one), plain(one.help)) for one in known]
    return table(("flag", "value", "default", "meaning"), rows) if rows else ""


def _is_flag(one: Any) -> bool:
    return one.name != "help" and not one.hidden and one.opts[0].startswith("-")


def _names(one: Any) -> str:
    return ", ".join(map(code, [*one.opts, *one.secondary_opts]))


def _value(one: Any, flags: Mapping[str, Flag]) -> str:
    """What a flag takes, in one word."""
    flag = flags.get(one.opts[0][2:])
    return code(one.metavar or (_VALUES[flag.kind] if flag else ""))


def _default(one: Any) -> str:
    if one.required:
        return "required"
    if one.is_flag:
        return code(one.opts[0]) if one.default else ""
    return "" if one.default is None else code(one.default)
