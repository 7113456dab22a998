"""What an evaluation found: per attack, per detector, with intervals.

``evaluation.schema.json`` beside ``report.schema.json`` is its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from detectors.auc import auc
from modelaudit.counting import Count
from modelaudit.failure import Failure
from modelaudit.fleet.evaluation_examinations import (
    SIGNS,
    ExaminationOutcome,
    Raised,
    examination_outcome,
    raised_in,
)
from modelaudit.fleet.manifest import ManifestModel
from modelaudit.report import DetectorReport, Report
from modelaudit.schemas import shipped_schema

#: Changes when a field is removed or changes its meaning (major) or is added (minor).
SCHEMA_VERSION = "1.3"


@dataclass(frozen=True)
class DetectorOutcome:
    """One detector's p-values for one model, and what it names.

    Attributes:
        target: the most suspicious class; ``None`` where there is none or all are (all-to-all).
        right: whether that is a true target, or all-to-all where the attack is.
        image_passes, seconds: its cost.
        statistics: r of every putative target.
    """

    p_plugin: float | None
    log_p_plugin: float | None
    p_calibrated: float | None
    target: int | None
    right: bool
    image_passes: float = 0.0
    seconds: float = field(default=0.0, compare=False)
    statistics: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """One model's scan against the truth.

    Attributes:
        key: fingerprint of model, options and version; a resume keeps the outcome if it is equal.
        verdict: ``None`` when the scan failed.
        targets: found by the scan, the surest first.
        right: verdict ``backdoored`` with a true target first; for a clean model: not refused.
        p: smallest Holm-adjusted p-value.
        error: why the scan failed.
        manifest: the model's entry in the manifest.
        examinations: those that were asked for.
        left_out: detectors that had not finished when the time budget was used up.
        cut_short_after: that time budget, in seconds; a resume with a larger one scans again.
    """

    name: str
    key: str
    label: str
    attack: str
    verdict: str | None
    targets: tuple[int, ...]
    right: bool
    p: float | None
    detectors: Mapping[str, DetectorOutcome]
    image_passes: float
    seconds: float
    error: str | None
    manifest: Mapping[str, Any]
    examinations: Mapping[str, ExaminationOutcome] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    cut_short_after: int | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Outcome:
        """The inverse of ``asdict``; raises KeyError or TypeError for something else."""
        # Reports before 1.2, and before 1.3, do not have these.
        entry = {"examinations": {}, "left_out": (), "cut_short_after": None, **entry}
        values = {f.name: entry[f.name] for f in fields(cls)}
        values["targets"] = tuple(values["targets"])
        values["left_out"] = tuple(values["left_out"])
        values["detectors"] = {
            name: DetectorOutcome(**{**one, "statistics": tuple(one["statistics"])})
            for name, one in values["detectors"].items()
        }
        values["examinations"] = {
            name: ExaminationOutcome(**one) for name, one in values["examinations"].items()
        }
        return cls(**values)


def outcome_of(
    model: ManifestModel,
    key: str,
    result: Report | Failure,
    examined: Sequence[str] = (),
    time_budget: int | None = None,
) -> Outcome:
    """Compare a report (or a failure) with the truth.

    Args:
        examined: the examinations that were asked for; the report has others after a finding.
        time_budget: of the scan, in seconds.
    """
    report = result if isinstance(result, Report) else None
    found = tuple(t.index for t in report.targets) if report else ()
    tested = [d for d in report.detectors if d.p_holm is not None] if report else []
    surest = min(tested, key=lambda d: d.p_holm or 0.0, default=None)
    refused = report is not None and report.verdict == "backdoored"
    return Outcome(
        name=model.name,
        key=key,
        label="backdoored" if model.backdoored else "clean",
        attack=model.attack,
        verdict=str(report.verdict) if report else None,
        targets=found,
        right=(
            refused and surest is not None and _points_there(model, surest)
            if model.backdoored
            else not refused
        ),
        p=surest.p_holm if surest else None,
        detectors={d.detector: _of_detector(model, d) for d in report.detectors} if report else {},
        image_passes=report.image_passes if report else 0.0,
        seconds=report.seconds if report else 0.0,
        error=None if isinstance(result, Report) else result.error.message,
        manifest=dict(model.entry),
        examinations=_of_examinations(report, examined) if report else {},
        left_out=_left_out(report) if report else (),
        cut_short_after=time_budget if report and report.cut_short else None,
    )


def _left_out(report: Report) -> tuple[str, ...]:
    return tuple(one.detector for one in report.cut_short.left_out) if report.cut_short else ()


def _of_detector(model: ManifestModel, detector: DetectorReport) -> DetectorOutcome:
    return DetectorOutcome(
        p_plugin=detector.p_plugin,
        log_p_plugin=detector.log_p_plugin,
        p_calibrated=detector.p_calibrated,
        target=detector.target.index if detector.target else None,
        right=_points_there(model, detector),
        image_passes=detector.image_passes,
        seconds=detector.seconds,
        statistics=tuple(one.statistic for one in detector.classes),
    )


def _of_examinations(report: Report, names: Sequence[str]) -> dict[str, ExaminationOutcome]:
    alpha = report.settings["alpha"]
    done = (one for one in report.examinations if one.name in names)
    return {one.name: examination_outcome(one, alpha) for one in done}


def _points_there(model: ManifestModel, detector: DetectorReport) -> bool:
    """Whether a detector's most suspicious target, or shift of all classes, is a true one."""
    if detector.shift is not None:
        return model.targets is None
    return detector.target is not None and model.is_right((detector.target.index,))


@dataclass(frozen=True)
class Evaluation:
    """The outcomes and what they add up to.

    Attributes:
        outcomes: in the order of the manifest.
        settings: the options of the evaluation.
    """

    outcomes: tuple[Outcome, ...]
    settings: Mapping[str, Any]

    @property
    def errors(self) -> tuple[Outcome, ...]:
        """Models whose scan failed; they are in no count."""
        return tuple(o for o in self.outcomes if o.error is not None)

    @property
    def clean(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.error is None and o.label == "clean")

    @property
    def backdoored(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.error is None and o.label == "backdoored")

    @property
    def attacks(self) -> tuple[tuple[str, tuple[Outcome, ...]], ...]:
        """Each attack with its models, by name; ``total`` with all at the end."""
        groups: dict[str, list[Outcome]] = {}
        for outcome in self.backdoored:
            groups.setdefault(outcome.attack, []).append(outcome)
        named = ((name, tuple(group)) for name, group in sorted(groups.items()))
        return (*named, ("total", self.backdoored))

    def signs(self) -> dict[str, dict[str, Raised]]:
        """Sign of an examination -> attack, ``total`` or ``clean`` -> how often it was raised.

        Empty where no examination was asked for.
        """
        done = {name for outcome in self.outcomes for name in outcome.examinations}
        groups = (*self.attacks, ("clean", self.clean))
        return {
            sign: {name: raised_in((o.examinations for o in one), sign) for name, one in groups}
            for sign, entry in SIGNS.items()
            if entry.examination in done
        }

    def detections(self, detector: str | None = None) -> dict[str, Count]:
        """Attack -> models detected with the right target; ``total`` is the key of all.

        Args:
            detector: count this one's own decisions (calibrated p below alpha) instead of the
                verdict's.
        """
        hit = self._hit(detector)
        return {name: Count(sum(map(hit, group)), len(group)) for name, group in self.attacks}

    def false_alarms(self, detector: str | None = None) -> Count:
        """Clean models refused by the verdict, or by one detector alone."""
        alpha = self.settings["alpha"]
        if detector is None:
            return Count(sum(not o.right for o in self.clean), len(self.clean))
        p_values = [_detector_p(o, detector) for o in self.clean]
        return Count(sum(p < alpha for p in p_values), len(p_values))

    def auc(self, detector: str | None = None) -> float | None:
        """Probability that a backdoored model has the smaller p-value than a clean one.

        Ties count half; ``None`` where there are no models of one kind.
        """
        p = (lambda o: _smallest(o.p)) if detector is None else (lambda o: _detector_p(o, detector))
        if not self.backdoored or not self.clean:
            return None
        return auc([p(o) for o in self.clean], [p(o) for o in self.backdoored])

    @property
    def detector_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for o in self.outcomes for name in o.detectors))

    def _hit(self, detector: str | None) -> Callable[[Outcome], bool]:
        if detector is None:
            return lambda o: o.right
        alpha = self.settings["alpha"]
        return lambda o: (
            detector in o.detectors
            and o.detectors[detector].right
            and _detector_p(o, detector) < alpha
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the summary and one entry per model."""
        finished = [*self.clean, *self.backdoored]
        return {
            "schema_version": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "summary": {
                "detections": {k: c.to_dict() for k, c in self.detections().items()},
                "false_alarms": self.false_alarms().to_dict(),
                "auc": self.auc(),
                "inconclusive": sum(o.verdict == "inconclusive" for o in finished),
                "errors": len(self.errors),
                "image_passes": sum(o.image_passes for o in finished),
                "seconds": sum(o.seconds for o in finished),
                "detectors": {
                    name: {
                        "detections": {k: c.to_dict() for k, c in self.detections(name).items()},
                        "false_alarms": self.false_alarms(name).to_dict(),
                        "auc": self.auc(name),
                    }
                    for name in self.detector_names
                },
                "examinations": {
                    sign: {name: raised.to_dict() for name, raised in counts.items()}
                    for sign, counts in self.signs().items()
                },
            },
            "models": [asdict(outcome) for outcome in self.outcomes],
        }


def evaluation_schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`Evaluation.to_dict`."""
    return shipped_schema("evaluation")


def _detector_p(outcome: Outcome, detector: str) -> float:
    one = outcome.detectors.get(detector)
    return _smallest(one.p_calibrated if one else None)


def _smallest(p: float | None) -> float:
    return 1.0 if p is None else p
