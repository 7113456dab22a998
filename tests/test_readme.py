"""The README against the program: commands, flags, exit codes, links."""

from __future__ import annotations

import re
from pathlib import Path

from fixtures import benchmark
from modelaudit.cli import main as cli
from tests.docs.checker import (
    broken_links,
    command_lines,
    flags_in,
    flags_of,
    require_exit_codes,
    require_valid,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_every_flag_in_the_readme_exists() -> None:
    text = re.sub(r"pip install --quiet", "", README)
    unknown = flags_in(text) - flags_of(cli.app, benchmark.app)
    assert not unknown


def test_every_command_in_the_readme_is_valid() -> None:
    shown = list(command_lines(README))
    assert {"scan", "screen", "evaluate"} <= {arguments[0] for arguments in shown}
    for arguments in shown:
        require_valid(arguments)


def test_exit_codes_are_the_programs() -> None:
    rows = dict(re.findall(r"^\| (\d) \| `([a-z-]+)` \|", README, re.MULTILINE))
    assert {verdict: int(code) for code, verdict in rows.items()} == dict(cli.EXIT_CODES)
    assert re.search(r"^\| 2 \|\s+\| error", README, re.MULTILINE)
    assert cli.EXIT_ERROR == 2
    require_exit_codes(README)


def test_links_and_paths_exist() -> None:
    assert not broken_links(ROOT / "README.md")
    for path in re.findall(r"fixtures/bundled/[\w./]+", README):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_ci_finds_both_commands() -> None:
    for name in ("try", "test"):
        block = re.search(rf"<!-- command: {name} -->\n```\n(.+)\n```", README)
        assert block is not None
        assert "\n" not in block.group(1)


def test_bundled_command_is_the_one_that_is_tested() -> None:
    assert "--labels fixtures/bundled/labels.txt" in README
