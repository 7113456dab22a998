"""The ROC curve of an evaluation and its bars per attack, as coordinates of drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelaudit.counting import Count
from modelaudit.fleet.evaluation import Evaluation, Outcome
from modelaudit.formats.evaluation_tables import CLEAN

#: Side of the ROC's square, and where it begins.
SIDE, ROC_LEFT, ROC_TOP = 320.0, 56.0, 12.0
ROC_WIDTH, ROC_HEIGHT = ROC_LEFT + SIDE + 16.0, ROC_TOP + SIDE + 44.0
#: Of the drawing of the bars.
BARS_WIDTH, BARS_LEFT, BARS_RIGHT = 760.0, 180.0, 600.0
BARS_TOP, ROW, THICKNESS = 8.0, 26.0, 14.0


@dataclass(frozen=True)
class Roc:
    """An ROC curve in a drawing of ``ROC_WIDTH`` x ``ROC_HEIGHT``.

    Attributes:
        path: SVG path; a slope where a clean and a backdoored model have the same p.
        area: as SVG path, closed; what lies below the curve.
        auc: its share of the square.
        x, y: the operating point at alpha ...
        x_interval, y_interval: ... and its 95 % Clopper-Pearson intervals.
        refused_clean, refused_backdoored: there; whatever target the verdict names.
    """

    path: str
    area: str
    auc: float
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]
    refused_clean: Count
    refused_backdoored: Count


@dataclass(frozen=True)
class Bar:
    """A share as a bar of ``width``; ``low`` and ``high`` are the ends of its interval."""

    y: float
    label: str
    width: float
    low: float
    high: float
    value: str
    alarms: bool


def roc_of(evaluation: Evaluation) -> Roc | None:
    """The ROC curve of the score -log p of the verdict; ``None`` without both kinds of models.

    p is the smallest Holm-adjusted p-value, and 1 where no detector gave one.
    """
    auc = evaluation.auc()
    if auc is None:
        return None
    clean, backdoored = _p_values(evaluation.clean), _p_values(evaluation.backdoored)
    corners = [(0.0, 0.0)]
    for p in sorted({*clean, *backdoored}):
        corners.append((_share(clean, p), _share(backdoored, p)))
    points = " L".join(f"{_x(x)},{_y(y)}" for x, y in corners)
    alpha = evaluation.settings["alpha"]
    refused, found = (Count(sum(p < alpha for p in one), len(one)) for one in (clean, backdoored))
    return Roc(
        path=f"M{points}",
        area=f"M{points} L{_x(1)},{_y(0)} Z",
        auc=auc,
        x=_x(refused.hits / refused.total),
        y=_y(found.hits / found.total),
        x_interval=(_x(refused.interval[0]), _x(refused.interval[1])),
        y_interval=(_y(found.interval[0]), _y(found.interval[1])),
        refused_clean=refused,
        refused_backdoored=found,
    )


def bars_of(evaluation: Evaluation) -> tuple[Bar, ...]:
    """Detections with the right target per attack, all, and last the false alarms."""
    counts = {**evaluation.detections(), CLEAN: evaluation.false_alarms()}
    shown = [(name, count) for name, count in counts.items() if count.total]
    return tuple(
        _bar(BARS_TOP + ROW * (index + 0.5), name, count)
        for index, (name, count) in enumerate(shown)
    )


def _bar(y: float, name: str, count: Count) -> Bar:
    low, high = count.interval
    scale = BARS_RIGHT - BARS_LEFT
    return Bar(
        y=y,
        label=name,
        width=round(scale * count.hits / count.total, 2),
        low=round(BARS_LEFT + scale * low, 2),
        high=round(BARS_LEFT + scale * high, 2),
        value=str(count),
        alarms=name == CLEAN,
    )


def _p_values(outcomes: Sequence[Outcome]) -> list[float]:
    return [1.0 if one.p is None else one.p for one in outcomes]


def _share(p_values: Sequence[float], most: float) -> float:
    return sum(p <= most for p in p_values) / len(p_values)


def _x(share: float) -> float:
    return round(ROC_LEFT + SIDE * share, 2)


def _y(share: float) -> float:
    return round(ROC_TOP + SIDE * (1 - share), 2)
