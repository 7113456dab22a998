"""What an unfinished scan had found out, on disk: one file per finished detector.

The folder is trusted as the program itself is: whoever can write to it can forge results. So it
must not be shared with people, or with jobs, that the verdict protects from. What a worker sends is
kept for the model that it ran, and for no other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from modelaudit import __version__
from modelaudit.errors import ModelAuditError
from modelaudit.files import write_whole
from modelaudit.finished import DIGEST, FinishedDetector
from modelaudit.loaders.fingerprint import sha256_of
from modelaudit.plain import from_plain, harmless, to_plain

#: Seconds after which what nobody came back for is removed.
KEPT_FOR = 30 * 86400
# A worker that was taken over must not fill the disk: detectors per scan, characters of them all.
# A model of 1,000 classes has a number for every pair of classes.
_MOST = 100
_LONGEST = 2**28


class Checkpoint:
    """Finished detectors of unfinished scans of one model.

    A damaged file is left out with a note, and a folder that cannot be written to gives a note: a
    checkpoint saves time and never stops a scan.

    Args:
        folder: of this model, called after its SHA-256; made when there is something to keep.
        note: called with sentences for a person.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self._folder = folder
        self._note = note
        self._found: set[str] = set()
        self._of_this_scan: set[str] = set()
        self._written = 0
        self._broken = False

    @classmethod
    def of_model(
        cls, cache: Path, model: Path, note: Callable[[str], None] = lambda text: None
    ) -> Checkpoint | None:
        """The checkpoint of a model in a cache folder; ``None`` if the model cannot be read."""
        try:
            return cls(cache / "scans" / sha256_of(model), note)
        except (ModelAuditError, OSError):  # the scan will say what is wrong
            return None

    def load(self) -> tuple[FinishedDetector, ...]:
        """What there is, of whatever settings; the keys tell which fit. Old files are removed."""
        self._remove_old()
        found = tuple(one for path in sorted(self._files()) if (one := self._read(path)))
        self._found = {one.key for one in found}
        return found

    def add(self, one: FinishedDetector) -> None:
        """Keep a detector of the scan that runs, whether it ran now or was found here."""
        if one.key in self._found and one.key not in self._of_this_scan:
            self._note(f"{one.report.detector}: taken over from a scan that was not finished")
        body = json.dumps(to_plain(one))
        self._written += len(body)
        if len(self._of_this_scan) >= _MOST or self._written > _LONGEST or self._broken:
            return
        self._of_this_scan.add(one.key)
        head = json.dumps({"modelaudit": __version__, "sha256": _sha256(body)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._path(one.key), f"{head}\n{body}\n")
        except OSError as error:
            self._broken = True
            self._note(f"nothing can be kept in {self._folder} ({error.strerror or error})")

    def clear(self) -> None:
        """Remove what this scan kept: it has finished."""
        for key in self._of_this_scan:
            with suppress(OSError):
                self._path(key).unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()  # if nothing else is in it

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from self._folder.glob("*.json")

    def _read(self, path: Path) -> FinishedDetector | None:
        """What a file holds; ``None`` if it is damaged or another version's."""
        try:
            head, body = path.read_text("utf-8").splitlines()
            written = from_plain(dict, json.loads(head))
            if written.get("modelaudit") != __version__:
                return None
            if written.get("sha256") != _sha256(body):
                raise ValueError("its content was changed")
            return from_plain(FinishedDetector, harmless(json.loads(body)))
        except (OSError, ValueError, RecursionError) as error:
            self._note(f"{path} cannot be used ({error}); that detector runs again")
            return None

    def _remove_old(self) -> None:
        """Remove files of all models that nobody came back for, and folders without any.

        Only what is called like a file of a checkpoint: a user may have named any folder.
        """
        oldest = time.time() - KEPT_FOR
        with suppress(OSError):
            for folder in filter(_is_own, self._folder.parent.iterdir()):
                for path in filter(_is_own, folder.iterdir()):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                if not any(folder.iterdir()):
                    folder.rmdir()


def _is_own(path: Path) -> bool:
    return DIGEST.fullmatch(path.name.partition(".")[0]) is not None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
