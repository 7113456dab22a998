"""Waivers: known findings that somebody answers for, until a day.

::

    [[waiver]]
    sha256 = "<64 hex digits>"       # of the model, as `modelaudit inspect` prints it
    reason = "trained here, reviewed in #123"
    owner = "jane@example.com"
    expires = 2027-01-31             # the last day (UTC) on which it holds
    verdict = "backdoored"           # optional: or "inconclusive"
    target = 3                       # optional: an index or the name of a target class
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from modelaudit.errors import UsageError
from modelaudit.evidence import Target
from modelaudit.toml_files import read_toml

#: Verdicts that can be waived; a scan that failed says nothing that one could answer for.
WAIVABLE = ("backdoored", "inconclusive")
_REQUIRED = ("sha256", "reason", "owner", "expires")
_OPTIONAL = ("verdict", "target")


@dataclass(frozen=True)
class Waiver:
    """An entry of a waivers file.

    Attributes:
        sha256: of the model, lower-case hex digits.
        expires: the last day on which it holds.
        verdict, target: that it is for; ``None`` for any.
    """

    sha256: str
    reason: str
    owner: str
    expires: date
    verdict: str | None = None
    target: int | str | None = None

    def fits(self, verdict: str, target: Target | None) -> bool:
        """Whether it is for that verdict and, where there is one, for that target."""
        if self.verdict not in (None, verdict):
            return False
        return self.target is None or (
            target is not None and self.target in (target.index, target.name)
        )


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers in a file.

    Raises:
        UsageError: the file cannot be read, or an entry lacks a field or has a wrong one.
    """
    data = read_toml(path)
    entries = data.get("waiver", [])
    if data.keys() - {"waiver"} or not isinstance(entries, list):
        raise UsageError(f"--waivers {path}: expected entries [[waiver]] and nothing else.")
    return tuple(_waiver(f"--waivers {path}, entry {n}", e) for n, e in enumerate(entries, 1))


def _waiver(place: str, entry: Any) -> Waiver:
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: expected [[waiver]] with {', '.join(_REQUIRED)}.")
    for key in entry:
        if key not in (*_REQUIRED, *_OPTIONAL):
            close = difflib.get_close_matches(key, (*_REQUIRED, *_OPTIONAL), n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_REQUIRED)}"
            raise UsageError(f"{place}: there is no field {key!r}; {advice}")
    for key in _REQUIRED:
        if key not in entry:
            raise UsageError(f"{place}: {key} is missing. A waiver needs {', '.join(_REQUIRED)}.")
    return Waiver(
        _sha256(place, entry["sha256"]),
        _text(place, "reason", entry["reason"]),
        _text(place, "owner", entry["owner"]),
        _day(place, entry["expires"]),
        *_scope(place, entry),
    )


def _sha256(place: str, value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{64}", value):
        return value.lower()
    raise UsageError(
        f"{place}: sha256 must be 64 hex digits; found {repr(value)[:80]}. `modelaudit inspect` "
        "prints the one of a model."
    )


def _text(place: str, key: str, value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return " ".join(value.split())
    raise UsageError(f"{place}: {key} must be text that is not empty; found {repr(value)[:80]}.")


def _day(place: str, value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return datetime.strptime(value, "%Y-%m-%d").date()
    except (TypeError, ValueError):
        raise UsageError(
            f"{place}: expires must be a day, YYYY-MM-DD; found {str(value)[:80]!r}."
        ) from None


def _scope(place: str, entry: Mapping[str, Any]) -> tuple[str | None, int | str | None]:
    verdict, target = entry.get("verdict"), entry.get("target")
    if verdict not in (None, *WAIVABLE):
        raise UsageError(
            f"{place}: verdict must be one of {', '.join(WAIVABLE)}; found {repr(verdict)[:80]}."
        )
    if target is not None and type(target) not in (int, str):
        raise UsageError(
            f"{place}: target must be the index or the name of a class; found {repr(target)[:80]}."
        )
    if target is not None and verdict == "inconclusive":
        raise UsageError(f"{place}: an inconclusive verdict has no target; drop one of the two.")
    return verdict, target
