"""A detector's sizes per class against the fitted null, as coordinates of a drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelaudit.evidence import LookedFor
from modelaudit.formats.reading import most_suspicious, suspicious_entries, was_stopped
from modelaudit.formats.wording import class_text
from modelaudit.report import ClassReport, DetectorReport, Report

#: Rows that a chart shows at most, the most suspicious ones.
MOST_ROWS = 20
WIDTH, LEFT, RIGHT = 760.0, 180.0, 695.0
TOP, CURVE, ROW = 22.0, 64.0, 20.0
_CURVE_POINTS = 120
_DEVIATIONS = 2.5
#: Round values in a decade: few, and more for short axes.
_STEPS = ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0))


@dataclass(frozen=True)
class Row:
    """A class: ``x`` is ``None`` where no pattern was found or the target was stopped."""

    y: float
    label: str
    x: float | None
    value: str
    suspicious: bool


@dataclass(frozen=True)
class Chart:
    """Coordinates in a drawing of ``WIDTH`` x ``height``.

    Attributes:
        axis: what the horizontal axis shows, on a logarithmic scale.
        curve: SVG path of the null's density; empty where no null was fitted.
        threshold: where a class would have been refused; ``None`` where that is not known.
        refused_left: whether that is on the left of the threshold.
        ticks: place and text.
        more: number of classes that are not shown.
    """

    detector: str
    axis: str
    rows: tuple[Row, ...]
    curve: str
    threshold: float | None
    threshold_text: str
    refused_left: bool
    ticks: tuple[tuple[float, str], ...]
    height: float
    more: int


def chart_of(report: Report, detector: DetectorReport) -> Chart | None:
    """The chart of one detector; ``None`` where it has nothing to draw."""
    sensitivity = next((s for s in report.looked_for if s.detector == detector.detector), None)
    by_size = detector.by_size
    value = _size if by_size else _statistic
    classes = most_suspicious(detector)
    shown = classes[:MOST_ROWS]
    values = [v for v in map(value, shown) if v]
    threshold = _threshold(sensitivity, by_size)
    if len(values) < 2:
        return None
    marks = [threshold] if threshold else []
    low, high = _range([*values, *marks, *_breadth(detector, by_size)])
    place = _log_scale(low, high)
    bottom = TOP + CURVE
    return Chart(
        detector=detector.detector,
        axis=detector.unit if by_size else f"statistic: {detector.unit}",
        rows=tuple(
            _row(report, detector, one, value(one), place, bottom + ROW * (index + 0.5))
            for index, one in enumerate(shown)
        ),
        curve=_curve(detector, by_size, low, high, place),
        threshold=place(threshold) if threshold else None,
        threshold_text=_digits(threshold) if threshold else "",
        refused_left=by_size,
        ticks=tuple((place(tick), f"{tick:g}") for tick in _ticks(low, high)),
        height=bottom + ROW * len(shown) + 40,
        more=len(classes) - len(shown),
    )


def _size(one: ClassReport) -> float | None:
    return one.size or None


def _statistic(one: ClassReport) -> float | None:
    return one.statistic or None


def _threshold(sensitivity: LookedFor | None, by_size: bool) -> float | None:
    if sensitivity is None:
        return None
    return sensitivity.size if by_size else sensitivity.statistic


def _row(
    report: Report,
    detector: DetectorReport,
    one: ClassReport,
    value: float | None,
    place: Callable[[float], float],
    y: float,
) -> Row:
    suspicious = one.target in suspicious_entries(report, detector)
    label = class_text(report, detector, one.target)
    if value is None:
        missing = "larger" if was_stopped(detector, one) else "none"
        return Row(y, label, None, missing, suspicious)
    return Row(y, label, place(value), _digits(value), suspicious)


def _digits(value: float) -> str:
    """Three digits, the last of which may be 0: in a column 3.00 is under 3.12."""
    return f"{value:#.3g}".removesuffix(".")


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(1.15, (high / low) ** 0.05)
    return low / margin, high * margin


def _breadth(detector: DetectorReport, by_size: bool) -> list[float]:
    """Where the null's hill has (nearly) ended, on both sides; empty where no null was fitted."""
    shape, scale = detector.null.get("shape"), detector.null.get("scale")
    if not shape or not scale:
        return []
    spread = math.exp(_DEVIATIONS / math.sqrt(shape))  # of log r, nearly
    ends = [shape * scale / spread, shape * scale * spread]
    return [1 / end for end in ends] if by_size else ends


def _log_scale(low: float, high: float) -> Callable[[float], float]:
    span = math.log(high / low)
    return lambda value: round(LEFT + (RIGHT - LEFT) * math.log(value / low) / span, 2)


def _ticks(low: float, high: float) -> list[float]:
    """Round values in the range, neither few nor many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    few, many = (
        [step * decade for decade in decades for step in steps if low <= step * decade <= high]
        for steps in _STEPS
    )
    if len(few) > 12:
        return [decade for decade in decades if low <= decade <= high]
    return few if len(few) > 2 else many


def _curve(
    detector: DetectorReport,
    by_size: bool,
    low: float,
    high: float,
    place: Callable[[float], float],
) -> str:
    """The density of the logarithm under the Gamma null, as a closed path."""
    shape, scale = detector.null.get("shape"), detector.null.get("scale")
    if not shape or not scale:
        return ""
    values = [low * (high / low) ** (i / _CURVE_POINTS) for i in range(_CURVE_POINTS + 1)]
    statistics = [1 / value if by_size else value for value in values]
    # Density of log r: r g(r), up to a constant; |d log size| = |d log r|.
    logs = [shape * math.log(r / scale) - r / scale for r in statistics]
    peak = max(logs)
    base = TOP + CURVE
    points = " ".join(
        f"L{place(value)},{base - 0.85 * CURVE * math.exp(log - peak):.2f}"
        for value, log in zip(values, logs, strict=True)
    )
    return f"M{place(low)},{base:.2f} {points} L{place(high)},{base:.2f} Z"
