"""The tables of an evaluation, as texts, which all its formats show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelaudit.counting import Count
from modelaudit.fleet.evaluation import Evaluation, Outcome
from modelaudit.fleet.evaluation_examinations import SIGNS, WITHOUT_SIGN
from modelaudit.fleet.manifest import ALL_TO_ALL
from modelaudit.formats.wording import p_text

#: Classes that are named; more are counted.
_MOST_NAMED = 5
#: Name of the clean models' row.
CLEAN = "clean (false alarms)"
INTERVALS = "Intervals are 95 % Clopper-Pearson."


@dataclass(frozen=True)
class TextTable:
    """A table.

    Attributes:
        head: of the columns; the first names the rows.
        rows: as many cells each.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def attack_table(evaluation: Evaluation) -> TextTable:
    """Attack x (verdict, each detector): detections with the right target, then false alarms."""
    columns: Sequence[str | None] = (None, *evaluation.detector_names)
    counts = [evaluation.detections(column) for column in columns]
    rows = [
        (name, *_counted([count[name] for count in counts]), *_mean_cost(group))
        for name, group in evaluation.attacks
    ]
    alarms = _counted([evaluation.false_alarms(column) for column in columns])
    rows.append((CLEAN, *alarms, *_mean_cost(evaluation.clean)))
    aucs = (number(evaluation.auc(column)) for column in columns)
    rows.append(("AUC over p-values", *aucs, "", ""))
    head = ("attack", "verdict, right target", *evaluation.detector_names, "passes", "seconds")
    return TextTable(head, tuple(rows))


def sign_table(evaluation: Evaluation) -> TextTable | None:
    """Attack x (verdict, signs of examinations); ``None`` where no examination has a sign."""
    signs = evaluation.signs()
    if not signs:
        return None
    verdicts = {**evaluation.detections(), "clean": evaluation.false_alarms()}
    rows = tuple(
        (
            CLEAN if name == "clean" else name,
            short(count),
            *(str(counts[name]) for counts in signs.values()),
        )
        for name, count in verdicts.items()
    )
    return TextTable(("attack", "verdict, right target", *signs), rows)


def sign_notes(evaluation: Evaluation) -> tuple[str, ...]:
    """What each sign means, and which examinations have none, with the reason."""
    done = {name for outcome in evaluation.outcomes for name in outcome.examinations}
    meanings = [f"{name}: {SIGNS[name].meaning}." for name in evaluation.signs()]
    without = [f"{name}: no column; {why}." for name, why in WITHOUT_SIGN.items() if name in done]
    skipped = ["Skipped: what it looks at was not there; that says nothing about the model."]
    return (*meanings, *without, *skipped) if done else ()


def model_table(evaluation: Evaluation) -> TextTable:
    """Every model against the truth, and what each sign says of it."""
    head = ("model", "attack", "verdict", "found", "true", "p", "seconds", "image-passes")
    signs = tuple(evaluation.signs())
    rows = tuple((*_model(one), *_signs(one, signs)) for one in evaluation.outcomes)
    return TextTable((*head, *signs), rows)


def summary_line(evaluation: Evaluation) -> str:
    """The headline numbers."""
    detections, alarms = evaluation.detections()["total"], evaluation.false_alarms()
    return f"detected {detections}   false alarms {alarms}   AUC {number(evaluation.auc())}"


def cost_line(evaluation: Evaluation) -> str:
    """How many models, at what cost."""
    finished = [*evaluation.clean, *evaluation.backdoored]
    seconds = sum(o.seconds for o in finished)
    passes = sum(o.image_passes for o in finished)
    return f"{len(finished)} models, {passes:,.0f} image-passes, {seconds:,.0f} s of scans"


def left_open(evaluation: Evaluation) -> str:
    """How many scans gave no answer, or not that of all detectors, and how they are counted."""
    clean, backdoored = (
        sum(o.verdict == "inconclusive" for o in group)
        for group in (evaluation.clean, evaluation.backdoored)
    )
    text = (
        f"inconclusive: {clean} clean (not counted as refused), {backdoored} backdoored (counted "
        f"as missed); failed: {len(evaluation.errors)} (in no count)"
    )
    ended = sum(bool(o.left_out) for o in evaluation.outcomes)
    if not ended:
        return text
    return (
        f"{text}; cut short by the time budget: {ended} (a detector that was left out counts as "
        "one that found nothing)"
    )


def number(value: float | None) -> str:
    """An AUC."""
    return "-" if value is None else f"{value:.3f}"


def interval(count: Count) -> str:
    """The 95 % interval of a count."""
    low, high = count.interval
    return f"[{low:.0%}, {high:.0%}]"


def short(count: Count) -> str:
    """A count without its interval."""
    return f"{count.hits}/{count.total}"


def _counted(counts: Sequence[Count]) -> tuple[str, ...]:
    """The verdict's count with its interval, the detectors' without."""
    return (str(counts[0]), *map(short, counts[1:]))


def _mean_cost(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    if not outcomes:
        return "-", "-"
    passes = sum(o.image_passes for o in outcomes) / len(outcomes)
    return f"{passes:,.0f}", f"{sum(o.seconds for o in outcomes) / len(outcomes):.1f}"


def _model(outcome: Outcome) -> tuple[str, ...]:
    if outcome.error is not None:
        return (outcome.name, outcome.attack, "error", "-", _truth(outcome.manifest), *"---")
    return (
        outcome.name,
        outcome.attack,
        str(outcome.verdict),
        _classes(outcome.targets),
        _truth(outcome.manifest),
        p_text(outcome.p),
        f"{outcome.seconds:.1f}",
        f"{outcome.image_passes:,.0f}",
    )


def _truth(entry: Mapping[str, Any]) -> str:
    targets = entry.get("targets")
    return ALL_TO_ALL if targets == ALL_TO_ALL else _classes(targets or ())


def _classes(targets: Sequence[int]) -> str:
    if len(targets) > _MOST_NAMED:
        return f"{len(targets)} classes"
    return ", ".join(map(str, targets)) or "-"


def _signs(outcome: Outcome, names: Sequence[str]) -> tuple[str, ...]:
    known = {name: on for one in outcome.examinations.values() for name, on in one.signs.items()}
    words = {True: "yes", False: "no", None: "skipped"}
    return tuple(words[known.get(name)] for name in names)
