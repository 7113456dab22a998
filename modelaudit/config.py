"""Settings of the program from configuration files.

::

    [tool.modelaudit]                # of every command that has the flag
    alpha = 0.01
    [tool.modelaudit.scan]           # of one command
    detector = ["l-red", "mm-bd"]    # a list where the flag is repeatable

in ``pyproject.toml``, or the same without ``tool.modelaudit`` in ``modelaudit.toml``. A key is the
long name of a flag, with dashes or underscores. Paths are relative to the folder of the file. In
``modelaudit.toml`` the keys that describe models (:mod:`modelaudit.model_config`) keep that meaning
at the top level; the flags of the same names belong into a command's table.

Unless a file is named (``--config``), the nearest folder that has settings, from the working folder
upwards, gives them; there ``modelaudit.toml`` goes before ``pyproject.toml``, key by key.

Such a file was only found: whoever wrote the folder with a hostile model may have put it there. So
it cannot set what weakens the process that runs the model (``limit``, ``isolation``), runs code or
trusts another machine (``arch`` with a module, ``ray``), writes files or believes what is in them
(``output``, ``pictures``, ``cache-dir``, ``report-dir``) or decides what is let pass (``fail-on``,
``exit-zero``, ``waivers``, ``exclude``, ``one-format``): see :data:`ONLY_NAMED`. What it does set,
the command says on stderr and in the report. It can still make a scan see less (``alpha``,
``detector``): in a folder of a stranger, work with ``--no-config`` or from elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelaudit.errors import UsageError
from modelaudit.toml_files import CONFIG_NAME, read_toml

PYPROJECT = "pyproject.toml"
#: Keys that count only in a file that is named on the command line or in the environment.
ONLY_NAMED = frozenset(
    {
        *("limit", "isolation", "ray"),
        *("output", "pictures", "cache-dir", "report-dir"),
        *("fail-on", "exit-zero", "waivers", "exclude", "one-format"),
    }
)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        parameter: name of the command's parameter.
        kind: of its value, or of each of its values: ``bool``, ``int``, ``float``, ``str`` or
            ``Path``.
        repeatable: whether it takes several.
    """

    parameter: str
    kind: type
    repeatable: bool


@dataclass(frozen=True)
class Setting:
    """A value from a file."""

    value: Any
    file: Path


#: Command -> key (a long name with dashes) -> flag.
Flags = Mapping[str, Mapping[str, Flag]]
#: Command -> key -> setting.
Settings = dict[str, dict[str, Setting]]


def read_settings(flags: Flags, named: Path | None, folder: Path) -> Settings:
    """The settings of every command.

    Args:
        named: the file to read; ``None`` looks for files from ``folder`` upwards.

    Raises:
        UsageError: a file cannot be read; an unknown key, a wrong type, or a key that counts only
            in a file that is named.
    """
    if named is not None:
        return _settings(named, _named_table(named), flags)
    settings: Settings = {}
    for path, table in _found(folder):
        found = _settings(path, table, flags)
        _require_harmless(found)
        for command, values in found.items():
            settings[command] = values | settings.get(command, {})
    return settings


def _found(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Files with settings in the nearest folder that has one, the stronger first."""
    for place in (folder, *folder.parents):
        paths = [path for path in (place / CONFIG_NAME, place / PYPROJECT) if path.is_file()]
        tables = [(path, _table(path)) for path in paths]
        if found := [(path, table) for path, table in tables if table]:
            return found
    return []


def _named_table(path: Path) -> dict[str, Any]:
    table = _table(path)
    if not table and path.name == PYPROJECT:
        raise UsageError(f"--config {path}: there is no table [tool.modelaudit] in it.")
    return table


def _table(path: Path) -> dict[str, Any]:
    """The settings in a file, unchecked."""
    if path.name != PYPROJECT:
        data = read_toml(path)
        if path.name != CONFIG_NAME:
            return data
        from modelaudit.model_config import facts_of, is_fact  # slow, and rarely needed

        facts_of(path, {key: value for key, value in data.items() if is_fact(key)})
        return {key: value for key, value in data.items() if not is_fact(key)}
    tools = read_toml(path, containing="modelaudit").get("tool", {})
    table = tools.get("modelaudit", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.modelaudit must be a table.")
    return table


def _settings(path: Path, table: Mapping[str, Any], flags: Flags) -> Settings:
    """The settings of a file; a command's own table goes before the rest."""
    settings = _general(path, {key: one for key, one in table.items() if key not in flags}, flags)
    for command in table.keys() & flags.keys():
        values = table[command]
        if not isinstance(values, dict):
            raise UsageError(f"{path}: {command} must be a table, [{command}]; found {values!r}.")
        for key, value in _normal(path, values, flags[command], f"{command}.").items():
            settings[command][key] = Setting(_value(path, key, flags[command][key], value), path)
    return settings


def _general(path: Path, table: Mapping[str, Any], flags: Flags) -> Settings:
    """The settings of every command that has such a flag, with values of such a type."""
    settings: Settings = {command: {} for command in flags}
    every = {key for known in flags.values() for key in known}
    for key, value in _normal(path, table, {*every, *flags}, "").items():
        problems = []
        having = [command for command, known in flags.items() if key in known]
        for command in having:
            try:
                given = _value(path, key, flags[command][key], value)
                settings[command][key] = Setting(given, path)
            except UsageError as error:
                problems.append(error)
        if problems and len(problems) == len(having):
            raise problems[0]
    return settings


def _normal(
    path: Path, table: Mapping[str, Any], known: Collection[str], prefix: str
) -> dict[str, Any]:
    """The values by keys with dashes."""
    values: dict[str, Any] = {}
    for given, value in table.items():
        key = given.replace("_", "-")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {prefix + close[0]!r}?" if close else "see `modelaudit config`."
            raise UsageError(f"{path}: there is no setting {prefix + given!r}; {advice}")
        if key in values:
            raise UsageError(f"{path}: {prefix}{key} is given twice, with a dash and without.")
        values[key] = value
    return values


def _value(path: Path, key: str, flag: Flag, value: Any) -> Any:
    """The value as the command line would have it.

    Raises:
        UsageError: it has another type than the flag.
    """
    values = value if flag.repeatable else [value]
    if not (isinstance(values, list) and all(_fits(flag.kind, one) for one in values)):
        word = _WORDS.get(flag.kind, "text, in quotes")
        expected = f'a list, each {word}: {key} = ["..."]' if flag.repeatable else word
        raise UsageError(f"{path}: {key} must be {expected}; found {repr(value)[:60]}.")
    if flag.kind is Path:
        folder = Path() if path.parent == Path.cwd() else path.parent
        values = [str(folder / one) for one in values]
    return values if flag.repeatable else values[0]


def _fits(kind: type, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is (str if kind is Path else kind)


def _require_harmless(settings: Settings) -> None:
    """Raise UsageError for a setting that a file which was only found must not have."""
    for values in settings.values():
        for key, setting in values.items():
            imports = key == "arch" and ":" in setting.value
            if key not in ONLY_NAMED and not imports:
                continue
            what = "arch with a module, whose code is run," if imports else key
            raise UsageError(
                f"{setting.file}: {what} is not taken from a file that was only found, because it "
                "may come with a model that is not trusted. If you trust it, name it: --config "
                f"{setting.file}; else give --{key} on the command line, or --no-config."
            )
