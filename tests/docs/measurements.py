"""Measured rates of each detector, from the committed results."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

from detectors.registry import default_names
from fixtures.attacks.registry import ATTACKS
from modelaudit.counting import Count
from tests.docs.markdown import code, table

ROOT = Path(__file__).parents[2]
_RESULTS = ROOT / "fixtures" / "results"
#: What the collection is -> the file with its scans.
COLLECTIONS = {
    "developed on": "zoo",
    "confirmed on": "fixtures-zoo",
    "confirmed on hard kinds": "fresh-zoo",
}
_SHARE = re.compile(r"(\d+)/(\d+)")
_VERDICT = "verdict"


@dataclass(frozen=True)
class Collection:
    """Scans of a labelled collection.

    Attributes:
        shares: row (an attack, ``total`` or ``clean``) -> detector (or ``verdict``) -> its share.
    """

    name: str
    file: str
    shares: dict[str, dict[str, Count]]

    @property
    def detectors(self) -> list[str]:
        return [name for name in self.shares["total"] if name != _VERDICT]


def collections() -> list[Collection]:
    """The measured collections."""
    return [
        Collection(name, file, _shares((_RESULTS / f"{file}.md").read_text("utf-8")))
        for name, file in COLLECTIONS.items()
    ]


def measurements_page() -> str:
    """All detectors: totals with intervals."""
    parts = [
        "# Measured detection and false alarms\n",
        "Counted in the committed results of `python -m fixtures.benchmark`: default settings, "
        "alpha 0.05, 8 images per class. *Detected*: the right target class, named first. A "
        "detector's numbers are its own p-values without Holm's correction over the others; the "
        "verdict's are with it. Intervals are 95 % Clopper-Pearson; where they are wide, little is "
        "known. *Developed on*: the models that detectors and priors were chosen on. *Confirmed "
        "on*: others; the last of these collections holds mostly what the one before it showed to "
        "be hard.\n",
    ]
    for one in collections():
        link = f"[{one.file}](../../fixtures/results/{one.file}.md)"
        parts += [f"## {one.name.capitalize()}: {link}\n"]
        rows = [
            (name if name == _VERDICT else code(name), str(share), str(one.shares["clean"][name]))
            for name, share in one.shares["total"].items()
        ]
        parts += [table(("", "detected", "false alarms"), rows)]
        if not_run := [code(name) for name in default_names() if name not in one.detectors]:
            one_or_more = "was added: the verdict is without it"
            if len(not_run) > 1:
                one_or_more = "were added: the verdict is without them"
            parts += [f"Scanned before {', '.join(not_run)} {one_or_more}.\n"]
    return "\n".join([*parts, *_attacks()])


def _attacks() -> list[str]:
    """What the names of attacks mean."""
    rows = [(code(name), _trigger(one), one.paper) for name, one in ATTACKS.items()]
    return [
        "## The attacks\n",
        "Models of the first collection have shorter names; there `1` and `3` are the number of "
        "source classes, and `A2A` is all-to-all: every class becomes the next.\n",
        table(("name", "trigger", "paper"), rows),
    ]


def _trigger(attack: object) -> str:
    """The first line of an attack's file, without the name."""
    said = inspect.getdoc(inspect.getmodule(attack)) or ""
    return said.splitlines()[0].split(": ", 1)[1]


def measured(detector: str) -> str:
    """What one detector found in every collection."""
    rows = []
    for one in collections():
        if detector in one.detectors:
            attacks = {a: s[detector] for a, s in one.shares.items() if a not in ("total", "clean")}
            found = ", ".join(f"{a} {s.hits}/{s.total}" for a, s in attacks.items() if s.hits)
            link = f"[{one.name}](../../fixtures/results/{one.file}.md)"
            total, clean = one.shares["total"][detector], one.shares["clean"][detector]
            rows.append((link, str(total), str(clean), found))
    head = (code(detector) + " alone", "detected", "false alarms", "attacks of which it found some")
    note = "It missed the collections' other attacks. Alpha 0.05; 95 % Clopper-Pearson intervals.\n"
    return table(head, rows) + "\n" + note


def _shares(text: str) -> dict[str, dict[str, Count]]:
    """The table of ``modelaudit evaluate`` in a result: its columns by their places."""
    lines = re.search(r"```\n(.*?)```", text, re.DOTALL).group(1).splitlines()  # type: ignore[union-attr]
    last = next(i for i, line in enumerate(lines) if line.startswith("attack"))
    total = next(line for line in lines if line.startswith("total"))
    places = [match.start() for match in _SHARE.finditer(total)]
    ends = [*places[1:], len(max(lines, key=len))]
    heads = [_head(lines[: last + 1], *place) for place in zip(places, ends, strict=True)]
    names = [_VERDICT, *heads[1:]]
    found = {}
    for line in lines[last + 1 :]:
        counts = [Count(int(hits), int(of)) for hits, of in _SHARE.findall(line)]
        if len(counts) == len(names):
            found[line.split()[0]] = dict(zip(names, counts, strict=True))
    return found


def _head(lines: list[str], start: int, end: int) -> str:
    """The name of a column, which may be broken at its dashes."""
    return "".join(line[start:end].split("  ")[0].strip() for line in lines)
