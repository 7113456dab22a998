"""The page of the environment variables, and of where settings come from."""

from __future__ import annotations

from modelaudit.cli.flags import RESERVED, variables
from modelaudit.config import ONLY_NAMED
from tests.docs.markdown import code, table

#: Variables that are no flags.
_OWN = {
    "MODELAUDIT_CACHE": "folder for simulated tables and unfinished scans; else "
    "`$XDG_CACHE_HOME/modelaudit`, else `~/.cache/modelaudit`",
    "MODELAUDIT_CONFIG": "the file that `--config` would name",
    "MODELAUDIT_DATA": "folder with data sets, for `python -m fixtures` in a clone only",
    "MODELAUDIT_DEBUG": "any value: tracebacks of internal errors, and what the worker prints",
    "MODELAUDIT_NO_CONFIG": "as `--no-config`",
}
#: Variables that are not this program's own.
_COMMON = {
    "NO_COLOR": "any value: no colours and no pictures in the terminal",
    "XDG_CACHE_HOME": "see `MODELAUDIT_CACHE`",
}
_PAGE = """\
# Environment variables and settings

A value is taken from the first place that has one:

1. the flag;
2. the command's environment variable, such as `{own}`;
3. the environment variable of all commands, such as `{shared}`;
4. the file of `--config`; else, in the nearest folder that has settings, `modelaudit.toml`, then
   `[tool.modelaudit]` in `pyproject.toml`;
5. the default.

A variable is `MODELAUDIT_`, then the command and `_` if it is for one command, then the flag in
capitals with `_` for `-`. A flag without a value takes `true` or `false`. Several values are
separated by spaces, several paths as in `PATH`.

Not taken from a file that was only found, not named: {only_named}, and `arch` with a module.

## Variables that are no flags

{table}"""


def environment_page() -> str:
    """Where settings come from, and the variables that are no flags.

    Raises:
        ValueError: the program knows other variables than this page.
    """
    if unlike := set(_OWN) ^ RESERVED:
        raise ValueError(f"the program and tests/docs/environment.py differ in: {unlike}")
    own, shared = variables("scan", "images-per-class")
    rows = [(code(name), meaning) for name, meaning in (_OWN | _COMMON).items()]
    return _PAGE.format(
        own=own,
        shared=shared,
        only_named=", ".join(map(code, sorted(ONLY_NAMED))),
        table=table(("variable", "meaning"), rows),
    )
