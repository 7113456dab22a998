"""The pictures of a report as PNG files."""

from __future__ import annotations

from pathlib import Path

from modelaudit.report import Report


def write_pictures(report: Report, folder: Path) -> list[str]:
    """Write ``target-T-KIND.png`` or ``all-to-all-KIND.png`` for every finding.

    Returns what went wrong. The folder is made if it is missing and there is something to write.
    """
    try:
        for finding in report.findings:
            for picture in finding.pictures:
                folder.mkdir(exist_ok=True)
                found = f"target-{finding.target.index}" if finding.target else "all-to-all"
                name = f"{found}-{picture.kind}.png"
                (folder / name).write_bytes(picture.data)
    except OSError as error:
        return [f"--pictures {folder}: {error.strerror or error}."]
    return []
