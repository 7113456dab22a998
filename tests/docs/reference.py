"""The reference pages: ``python -m tests.docs.reference`` writes them anew from the program.

So are the parts of other pages between ``<!-- measured: DETECTOR -->`` and ``<!-- end of measured
-->``, from the committed results. Look at the difference before committing it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.docs.commands import commands_page, exit_codes_page
from tests.docs.environment import environment_page
from tests.docs.listings import checks_page, detectors_page, names_page
from tests.docs.measurements import measured, measurements_page
from tests.docs.schemas import schemas_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "commands": commands_page,
    "exit-codes": exit_codes_page,
    "detectors": detectors_page,
    "checks": checks_page,
    "names": names_page,
    "environment": environment_page,
    "schemas": schemas_page,
    "measurements": measurements_page,
}
_GENERATED = "<!-- Written by `python -m tests.docs.reference`; do not edit. -->\n"
_MEASURED = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end of measured -->)", re.DOTALL)


def pages() -> dict[Path, Callable[[], str]]:
    """Every page that is written, or has a part that is, and what makes its text."""
    known = {
        DOCS / "reference" / f"{name}.md": partial(_whole, page) for name, page in PAGES.items()
    }
    for path in sorted((DOCS / "explanation").glob("*.md")):
        if _MEASURED.search(path.read_text("utf-8")):
            known[path] = partial(_with_measured, path)
    return known


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(), encoding="utf-8")


def _whole(page: Callable[[], str]) -> str:
    return f"{_GENERATED}\n{page().strip()}\n"


def _with_measured(path: Path) -> str:
    """A page that somebody wrote, with its measurements."""
    text = path.read_text("utf-8")
    return _MEASURED.sub(lambda found: f"{found[1]}{measured(found[2])}{found[3]}", text)


if __name__ == "__main__":
    main()
