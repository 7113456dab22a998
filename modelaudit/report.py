"""The typed, versioned report of a scan; formats turn it into text, the command prints it.

``report.schema.json`` beside this file is its JSON Schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from modelaudit.cut_short import CutShort
from modelaudit.evidence import FindingReport, LookedFor, Target
from modelaudit.examination_report import ExaminationReport
from modelaudit.policy_report import PolicyReport
from modelaudit.schemas import shipped_schema
from modelaudit.verdict import Verdict

#: Changes when a field is removed or changes its meaning (major) or is added (minor).
SCHEMA_VERSION = "1.4"


@dataclass(frozen=True)
class TriedPreprocessing:
    """A preprocessing that was tried; ``accuracy`` is ``None`` where the model refused it."""

    name: str
    accuracy: float | None
    error: str | None


@dataclass(frozen=True)
class PreprocessingReport:
    """How pixels become the model's input; see :class:`modelaudit.classifier.Preprocessing`.

    Attributes:
        chosen: ``auto``, or the places that state it, e.g. ``modelaudit.toml``.
        tried: every candidate with its clean accuracy, in order of simplicity.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_range: str
    channel_order: str
    layout: str
    chosen: str
    tried: tuple[TriedPreprocessing, ...]


@dataclass(frozen=True)
class ModelReport:
    """The suspect model.

    Attributes:
        sha256: hex digest of the file; see :func:`modelaudit.loaders.sha256_of`. Of a torch module
            in memory: see :func:`modelaudit.loaders.module.load_module`.
        input_shape: ``(C, H, W)`` of the pixels.
        classes: names of the K outputs.
        outputs: of the file: ``logits``, ``probabilities``, ``log-probabilities`` or ``sigmoid``
            (one per class).
        sources: where ``labels`` (the names of the classes), ``mean``, ``std``, ``input_range``,
            ``channel_order``, ``layout`` and ``image_size`` come from; see
            :mod:`modelaudit.stated`.
        reference_error: largest difference from the reference runtime's outputs, relative to the
            largest output; ``None`` where there is no reference.
    """

    path: str
    sha256: str
    format: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: str
    preprocessing: PreprocessingReport
    sources: Mapping[str, str]
    reference_error: float | None
    details: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImagesReport:
    """The clean images.

    Attributes:
        counts: class index -> number of images used.
        accuracy: share of ``pool`` images classified correctly; ``None`` if it was not measured.
        pool: number of images that accuracy was measured on.
        sha256: over the files used, in order; see :attr:`modelaudit.images.CleanImages.sha256`.
    """

    directory: str
    per_class: int
    counts: Mapping[str, int]
    total: int
    pool: int
    accuracy: float | None
    resized: int
    mapping: str
    sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """A preflight check; see :class:`modelaudit.checks.Check`."""

    name: str
    status: str
    message: str
    advice: str


@dataclass(frozen=True)
class ClassReport:
    """One putative target of a detector; see :class:`detectors.types.ClassStatistic`."""

    target: int
    statistic: float
    size: float | None
    flip_rate: float
    weights: Mapping[str, float]
    steps: int


@dataclass(frozen=True)
class DetectorReport:
    """A detector's result without its tensors; see :class:`detectors.types.DetectorResult`.

    Attributes:
        target: the most suspicious class.
        others: further classes that stand out together with it, if the p-value is small.
        shift: the most suspicious shift of an all-to-all detector, whose ``classes`` are shifts.
        p_holm: the calibrated p-value after Holm's weighted correction over the detectors that
            ran; the verdict compares it with alpha.
    """

    detector: str
    p_plugin: float | None
    log_p_plugin: float | None
    p_calibrated: float | None
    p_holm: float | None
    target: Target | None
    shift: int | None
    sources: Mapping[str, float]
    classes: tuple[ClassReport, ...]
    unit: str
    image_passes: float
    seconds: float
    null: Mapping[str, float]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    reason: str
    others: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """The most suspicious class and the others, or none."""
        return (self.target, *self.others) if self.target else ()

    @property
    def by_size(self) -> bool:
        """Whether small sizes are suspicious; else the statistics speak, the large ones."""
        return are_reciprocal((one.statistic, one.size) for one in self.classes)


def are_reciprocal(classes: Iterable[tuple[float, float | None]]) -> bool:
    """Whether statistics are one over their sizes, as L-RED's are, as far as there are sizes."""
    sized = [statistic * size for statistic, size in classes if size is not None]
    return bool(sized) and all(abs(product - 1) < 1e-6 for product in sized)


@dataclass(frozen=True)
class Report:
    """Everything that a scan found and how.

    Attributes:
        reasons: why the verdict is inconclusive.
        findings: what was found, one per target class or all-to-all attack, the surest first.
        looked_for: per detector with a p-value, what it would have seen.
        examinations: published checks beside the verdict, which they do not change.
        settings: the options of the scan.
        environment: versions, device, threads, seed and time.
        image_passes: total cost; see :attr:`modelaudit.classifier.Classifier.image_passes`.
        seconds: wall-clock time of the scan; where Ray split it, that of its last task and of the
            detectors before it.
        cut_short: why it ended before all detectors and examinations had finished; ``None`` if it
            did not.
        policy: what the verdict leads to; ``None`` where nobody asked the command line.
    """

    schema_version: str
    verdict: Verdict
    targets: tuple[Target, ...]
    reasons: tuple[str, ...]
    model: ModelReport
    images: ImagesReport
    preflight: tuple[CheckReport, ...]
    detectors: tuple[DetectorReport, ...]
    findings: tuple[FindingReport, ...]
    looked_for: tuple[LookedFor, ...]
    examinations: tuple[ExaminationReport, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    image_passes: float
    seconds: float
    cut_short: CutShort | None = None
    policy: PolicyReport | None = None

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended the scan."""
        return self.cut_short is not None and self.cut_short.cause == "interrupted"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return plain

    def _repr_html_(self) -> str:
        """What a notebook shows: the HTML report, in a frame so that both keep their styles."""
        from modelaudit.formats.html import render_html

        page = escape(render_html(self))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


def schema() -> dict[str, Any]:
    """The JSON Schema of :meth:`Report.to_dict`, and of a scan that failed."""
    return shipped_schema("report")
