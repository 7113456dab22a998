"""Let pages link to files of the repository outside ``docs/``, as they do where no site is built.

The files that pages link to are copied into the site, below ``repository/``, and so are those that
they link to, and so on. A link to a missing file stays as it is, so that ``--strict`` finds it.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
COPIES = "repository"
_LINK = re.compile(r"(\]\()([^)#\s:]+)(?=[)#])")


def on_files(files: Any, config: Any) -> Any:
    """Add the files outside ``docs/`` to the site."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages()]
    known = set(waiting)
    for page in waiting:
        for path in _outside(page):
            if path in known:
                continue
            known.add(path)
            copy = posixpath.join(COPIES, path.relative_to(ROOT).as_posix())
            files.append(File.generated(config, copy, abs_src_path=str(path)))
            if path.suffix == ".md":
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links to their copies."""
    source, copied = Path(page.file.abs_src_path), PurePosixPath(page.file.src_uri).parent

    def pointed(link: re.Match[str]) -> str:
        path = (source.parent / link[2]).resolve()
        if not _is_outside(path):
            return link[0]
        copy = posixpath.join(COPIES, path.relative_to(ROOT).as_posix())
        return link[1] + os.path.relpath(copy, copied)

    return _LINK.sub(pointed, markdown)


def _outside(page: Path) -> Iterator[Path]:
    for link in _LINK.finditer(page.read_text("utf-8")):
        path = (page.parent / link[2]).resolve()
        if _is_outside(path):
            yield path


def _is_outside(path: Path) -> bool:
    """Whether it is a file of the repository that the site does not hold anyway."""
    return path.is_file() and ROOT in path.parents and ROOT / "docs" not in path.parents
