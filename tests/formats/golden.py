"""Golden files of every format: ``python -m tests.formats.golden`` writes them anew.

Look at the difference (``git diff tests/formats/golden``) before committing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from modelaudit.failure import Failure
from modelaudit.formats import FORMATS
from modelaudit.report import Report
from tests.formats import reports

FOLDER = Path(__file__).with_name("golden")
REPORTS: Mapping[str, Callable[[], Report | Failure]] = {
    "backdoored": reports.backdoored,
    "several": reports.several,
    "clean": reports.clean,
    "inconclusive": reports.inconclusive,
    "waived": reports.waived,
    "cut-short": reports.cut_short,
    "failed": reports.failed,
}


def cases() -> Iterator[tuple[str, str, Path]]:
    """Report, format and golden file."""
    for report in REPORTS:
        for name, one in FORMATS.items():
            yield report, name, FOLDER / f"{report}{one.extensions[0]}"


def main() -> None:
    """Write all golden files."""
    FOLDER.mkdir(exist_ok=True)
    for report, name, path in cases():
        path.write_text(FORMATS[name](REPORTS[report]()), encoding="utf-8")


if __name__ == "__main__":
    main()
