"""Put together the report of a scan from its parts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from detectors.types import ClassStatistic, DetectorResult
from modelaudit import __version__
from modelaudit.cut_short import CutShort
from modelaudit.evidence import FindingReport
from modelaudit.examination_report import ExaminationReport
from modelaudit.images import class_name
from modelaudit.loaders import sha256_of
from modelaudit.options import ScanOptions
from modelaudit.preflight import PreflightReport
from modelaudit.report import (
    SCHEMA_VERSION,
    CheckReport,
    ClassReport,
    DetectorReport,
    ImagesReport,
    ModelReport,
    PreprocessingReport,
    Report,
    Target,
    TriedPreprocessing,
)
from modelaudit.sensitivity import looked_for
from modelaudit.stated import stated_places
from modelaudit.suspect import Suspect
from modelaudit.verdict import Decision
from modelaudit.versions import library_versions


def make_report(
    options: ScanOptions,
    suspect: Suspect,
    preflight: PreflightReport,
    results: Sequence[DetectorResult],
    decision: Decision,
    findings: tuple[FindingReport, ...],
    examinations: tuple[ExaminationReport, ...],
    seconds: float,
    cut_short: CutShort | None,
) -> Report:
    """The report; everything in it is plain data."""
    names = class_names(suspect)
    return Report(
        schema_version=SCHEMA_VERSION,
        verdict=decision.verdict,
        targets=tuple(Target(t, names[t]) for t in decision.targets),
        reasons=decision.reasons,
        model=_model(options, suspect, names),
        images=_images(options, suspect, preflight),
        preflight=tuple(
            CheckReport(c.name, c.status, c.message, c.advice) for c in preflight.checks
        ),
        detectors=tuple(
            detector_report(result, p_holm, names)
            for result, p_holm in zip(results, decision.p_holm, strict=True)
        ),
        findings=findings,
        looked_for=looked_for(results, options.alpha),
        examinations=examinations,
        settings=options.describe(),
        environment=environment_of(suspect.classifier.device, options.seed),
        image_passes=suspect.classifier.image_passes,
        seconds=seconds,
        cut_short=cut_short,
    )


def class_names(suspect: Suspect) -> tuple[str, ...]:
    """Names of all outputs; the index as text where there is no name."""
    known = suspect.pool.class_names
    return tuple(class_name(known, index) for index in range(suspect.classifier.num_classes))


def environment_of(device: torch.device, seed: int) -> dict[str, Any]:
    """What the numbers depend on beside the inputs."""
    return {
        "modelaudit": __version__,
        "python": platform.python_version(),
        **library_versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _model(options: ScanOptions, suspect: Suspect, names: tuple[str, ...]) -> ModelReport:
    choice = suspect.choice
    used = choice.preprocessing
    return ModelReport(
        path=str(options.model),
        sha256=suspect.loaded.sha256 or sha256_of(options.model),
        format=suspect.loaded.format,
        input_shape=suspect.classifier.input_shape,
        classes=names,
        outputs=choice.outputs,
        preprocessing=PreprocessingReport(
            name=used.name,
            mean=used.mean,
            std=used.std,
            input_range=used.input_range,
            channel_order=used.channel_order,
            layout=used.layout,
            chosen=", ".join(stated_places(suspect.fit.sources)) or "auto",
            tried=tuple(TriedPreprocessing(t.name, t.accuracy, t.error) for t in choice.table),
        ),
        sources=dict(suspect.fit.sources),
        reference_error=suspect.reference_error,
        details=dict(suspect.loaded.details),
        notes=(*suspect.loaded.notes, *suspect.fit.notes),
    )


def _images(options: ScanOptions, suspect: Suspect, preflight: PreflightReport) -> ImagesReport:
    chosen = suspect.chosen
    return ImagesReport(
        directory=str(options.clean_dir),
        per_class=options.images_per_class,
        counts={str(index): count for index, count in chosen.counts().items()},
        total=len(chosen),
        pool=len(suspect.pool),
        accuracy=preflight.clean_accuracy,
        resized=chosen.resized,
        mapping=chosen.mapping,
        sha256=chosen.sha256,
        warnings=chosen.warnings,
    )


def detector_report(
    result: DetectorResult, p_holm: float | None, names: tuple[str, ...]
) -> DetectorReport:
    """A detector's part of the report.

    Args:
        p_holm: its Holm-adjusted p-value.
        names: of all classes.
    """
    return DetectorReport(
        detector=result.detector,
        p_plugin=result.p_plugin,
        log_p_plugin=result.log_p_plugin,
        p_calibrated=result.p_calibrated,
        p_holm=p_holm,
        target=None if result.target is None else Target(result.target, names[result.target]),
        others=tuple(Target(other, names[other]) for other in result.others),
        shift=result.shift,
        sources=_weights(result.sources),
        classes=tuple(map(_class, result.classes)),
        unit=result.unit,
        image_passes=result.image_passes,
        seconds=result.seconds,
        null=dict(result.null),
        settings=dict(result.settings),
        notes=result.notes,
        reason=result.reason,
    )


def _class(one: ClassStatistic) -> ClassReport:
    return ClassReport(
        one.target, one.statistic, one.size, one.flip_rate, _weights(one.weights), one.steps
    )


def _weights(weights: Mapping[int, float]) -> dict[str, float]:
    return {str(source): weight for source, weight in weights.items()}
