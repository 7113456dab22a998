"""Remove a folder that a stranger filled."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` and what is in it, as far as that is allowed; links are not followed.

    Folders deep inside are moved up first: ``shutil.rmtree`` fails on a thousand, one in another.
    """
    unused = secrets.token_hex(8)
    waiting, moved = [folder], 0
    while waiting:
        for path in _folders_in(waiting.pop()):
            target = path
            if path.parent != folder:
                target, moved = folder / f"{unused}-{moved}", moved + 1
            with suppress(OSError):
                path.chmod(0o700)  # to move a folder is to write into it
                path.rename(target)
                waiting.append(target)
    shutil.rmtree(folder, ignore_errors=True)


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        folder.chmod(0o700)
        with os.scandir(folder) as entries:
            return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []
