"""Fixed reports, made without a scan, with names that a hostile author might choose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from modelaudit.cut_short import CutShort, LeftOut
from modelaudit.evidence import (
    FindingReport,
    FindingSource,
    FlipCount,
    LookedFor,
    Picture,
    PictureKind,
    Target,
)
from modelaudit.examination_report import ExaminationReport
from modelaudit.failure import FailedModel, Failure, FailureCause
from modelaudit.policy_report import PolicyReport, WaiverReport
from modelaudit.report import (
    SCHEMA_VERSION,
    CheckReport,
    ClassReport,
    DetectorReport,
    ImagesReport,
    ModelReport,
    PreprocessingReport,
    Report,
    TriedPreprocessing,
)
from modelaudit.verdict import Verdict

NAMES = (
    "T-shirt/top",
    "Trouser",
    "<script>alert(1)</script>",
    "Dress",
    "a | b [link](http://example.com) @someone",
    "Sandal & 'quotes\"",
    "`tick` ]]> --> **bold**",
    "Schuhgröße 鞋",
    "Bag",
    "Ankle boot",
)
VERSION = "9.8.7"
_SIZES = (50.7, 28.5, 45.4, 2.19, 42.5, 41.2, 48.8, 36.9, 39.8, 33.2)
_L2 = (2.69, 2.93, 2.16, 1.62, 2.41, 3.12, 2.06, None, 2.32, 3.0)
_CLEAN = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAOElEQVR42mOUYkAFTAyEBFgYGBgYGGZCOOkwFVA+w0yowEy4+pnEGEotgXQ4Lx2qIh3BZ2Ak6FsAFgQFVUAXxgMAAAAASUVORK5CYII="  # noqa: E501
_STAMPED = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAARklEQVR42mOUYkAFTAyEBFgYGBgYGGZCOOkwFVA+w0yowEy4+pnEGEqGAAsS24fxP0RFOlSA8T8jVAtU5D/jfwYGRoK+BQDRaAjVfIenyAAAAABJRU5ErkJggg=="  # noqa: E501
_DIFFERENCE = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAKElEQVR42mNsYEAFTAxDRYAFie1jcmYLigqTM7NQtZyZNZOBgZGgbwHcfAa6c/HxNgAAAABJRU5ErkJggg=="  # noqa: E501


def backdoored() -> Report:
    """Two detectors, of which one finds a backdoor."""
    weights = {"6": 0.5, "8": 0.3, "4": 0.15, "0": 0.05}
    sparse = _detector("l-red-sparse", _SIZES, 7.5e-13, 0.026, 38.0)
    l2 = _detector("l-red", _L2, 0.31, 0.42, 30.0)
    return Report(
        schema_version=SCHEMA_VERSION,
        verdict=Verdict.BACKDOORED,
        targets=(Target(3, NAMES[3]),),
        reasons=(),
        model=_model(),
        images=_images(),
        preflight=(
            CheckReport("clean-accuracy", "ok", "Clean accuracy is 91.2% (73 of 80 images).", ""),
            CheckReport("misclassified", "warning", "Fewer than 8: 'Dress' (7).", "Add images."),
        ),
        detectors=(l2, replace(sparse, sources=weights)),
        findings=(_finding(),),
        looked_for=(
            LookedFor("l-red", "faint patterns", 0.05, 0.654, 1.53, 1.62, "L2 norm"),
            LookedFor("l-red-sparse", "patches: BadNets", 0.05, 0.0456, 21.9, 2.19, "pixels"),
        ),
        examinations=(
            _examination("strip", "done", "", "3 of 20 inputs look stamped"),
            _examination("spectral", "skipped", "needs --train-dir", ""),
        ),
        settings={
            "detectors": ["l-red", "l-red-sparse"],
            "settings": {"l-red": {"tau_max": "64"}},
            "alpha": 0.05,
            "images_per_class": 8,
            "labels": None,
        },
        environment=_environment(),
        image_passes=32174.0,
        seconds=14.049,
    )


def several() -> Report:
    """A detector with two targets that stand out together, each with a finding of its own."""
    report, second = backdoored(), Target(1, NAMES[1])
    l2, sparse = report.detectors
    note = "only 12 images of the source classes are left"
    finding = replace(report.findings[0], target=second, size=28.5, pictures=(), note=note)
    return replace(
        report,
        targets=(*report.targets, second),
        detectors=(replace(l2, others=(second,)), replace(sparse, others=(second,))),
        findings=(*report.findings, finding),
    )


def clean() -> Report:
    """The same detectors without a finding."""
    report = backdoored()
    p_values = {"l-red": 0.42, "l-red-sparse": 0.42}
    return replace(
        report,
        verdict=Verdict.NO_BACKDOOR_FOUND,
        targets=(),
        findings=(),
        detectors=tuple(
            replace(d, p_calibrated=0.21, p_holm=p_values[d.detector]) for d in report.detectors
        ),
    )


def all_to_all() -> Report:
    """An attack in which every class becomes the next one."""
    report = backdoored()
    sparse = report.detectors[1]
    shifts = replace(
        sparse,
        detector="l-red-all-to-all",
        target=None,
        shift=1,
        classes=tuple(
            replace(one, target=one.target + 1) for one in report.detectors[1].classes[:9]
        ),
        settings={"embedding": "sparse", "sources": "all-to-all"},
    )
    finding = replace(report.findings[0], detector=shifts.detector, target=None, shift=1)
    return replace(
        report,
        targets=tuple(Target(index, name) for index, name in enumerate(NAMES)),
        detectors=(report.detectors[0], shifts),
        findings=(finding,),
    )


def inconclusive() -> Report:
    """A scan that preflight stopped."""
    check = CheckReport(
        "clean-accuracy", "inconclusive", "Clean accuracy is 12%, below 50%.", "See --preprocess."
    )
    return replace(
        backdoored(),
        verdict=Verdict.INCONCLUSIVE,
        targets=(),
        reasons=(check.message,),
        preflight=(check,),
        detectors=(),
        findings=(),
        looked_for=(),
        examinations=(),
    )


def waived() -> Report:
    """A finding that somebody answers for; an older waiver of it has expired."""
    waivers = (
        WaiverReport("expired", "first look", "joe", "2025-06-30", None, None),
        WaiverReport("applied", "known & <b>reviewed</b> | #12", "jane", "2026-06-30", None, "3"),
    )
    policy = PolicyReport(("backdoored", "inconclusive", "error"), 0, waivers)
    return replace(backdoored(), policy=policy)


def cut_short() -> Report:
    """A scan without a finding whose time was over before its last detector had finished."""
    report = clean()
    cut = CutShort("time budget", (LeftOut("l-red-warp", "warps: WaNet"),), kept=True)
    left_out = replace(
        report.detectors[0],
        detector="l-red-warp",
        p_plugin=None,
        log_p_plugin=None,
        p_calibrated=None,
        p_holm=None,
        target=None,
        sources={},
        classes=(),
        unit="",
        image_passes=0.0,
        seconds=0.0,
        null={},
        settings={},
        notes=(),
        reason=cut.reason,
    )
    return replace(report, detectors=(*report.detectors, left_out), cut_short=cut)


def failed() -> Failure:
    """A scan that failed."""
    cause = FailureCause("ModelFileError", "loading the model", "No model: <b> & \x1b[31m | `x`")
    model = FailedModel("models/<odd> name.onnx", "0" * 64)
    return Failure(SCHEMA_VERSION, "error", cause, model, {"modelaudit": VERSION})


def _detector(
    name: str, sizes: tuple[float | None, ...], p: float, scale: float, shape: float
) -> DetectorReport:
    statistics = [0.0 if size is None else 1 / size for size in sizes]
    return DetectorReport(
        detector=name,
        p_plugin=p**2,
        log_p_plugin=-27.9,
        p_calibrated=p / 2,
        p_holm=p,
        target=Target(3, NAMES[3]),
        shift=None,
        sources={"6": 1.0},
        classes=tuple(
            ClassReport(t, statistics[t], size, 0.92, {"6": 1.0}, 40)
            for t, size in enumerate(sizes)
        ),
        unit="L2 norm, pixels in [0, 1]" if name == "l-red" else "pixels x change",
        image_passes=12869.0,
        seconds=3.743,
        null={"shape": shape, "scale": scale / shape if name != "l-red" else 0.4 / shape},
        settings={"embedding": "additive" if name == "l-red" else "sparse"},
        notes=("no pattern found for 1 target (7)",) if name == "l-red" else (),
        reason="",
    )


def _finding() -> FindingReport:
    captions: dict[PictureKind, tuple[str, str]] = {
        "clean": ("clean image of class 6 (`tick` ]]> --> **bold**)", _CLEAN),
        "stamped": ("with the pattern: class 3 (Dress)", _STAMPED),
        "difference": ("difference x 1; grey is no change", _DIFFERENCE),
        "pattern": ("pattern x 1; grey is no change", _DIFFERENCE),
    }
    return FindingReport(
        detector="l-red-sparse",
        target=Target(3, NAMES[3]),
        shift=None,
        sources=(FindingSource(6, NAMES[6], 0.5), FindingSource(8, NAMES[8], 0.3)),
        p=7.5e-13,
        embedding="sparse",
        size=2.19,
        unit="pixels x change",
        searched=FlipCount(15, 16, (0.698, 0.998)),
        held_out=FlipCount(63, 64, (0.916, 0.9996)),
        note="",
        pictures=tuple(Picture(kind, *content) for kind, content in captions.items()),
    )


def _examination(
    name: str, status: Literal["done", "skipped"], reason: str, summary: str
) -> ExaminationReport:
    return ExaminationReport(
        name=name,
        status=status,
        reason=reason,
        summary=summary,
        target=3,
        numbers={"flagged": 3, "files": {"a.png": 0.25}},
        cannot_see="triggers that <depend> on the input",
        notes=(),
        image_passes=40.0,
        seconds=0.5,
    )


def _model() -> ModelReport:
    return ModelReport(
        path="models/odd <name>.onnx",
        sha256="40df4be61678f00e145d9f25e3fcf598198c9140f25afe16e666827472b1304b",
        format="onnx",
        input_shape=(1, 28, 28),
        classes=NAMES,
        outputs="logits",
        preprocessing=PreprocessingReport(
            name="as-is",
            mean=(0.0,),
            std=(1.0,),
            input_range="0-1",
            channel_order="RGB",
            layout="NCHW",
            chosen="auto",
            tried=(
                TriedPreprocessing("as-is", 0.9125, None),
                TriedPreprocessing("0-255", None, "refused"),
            ),
        ),
        sources=dict.fromkeys(
            ("labels", "mean", "std", "input_range", "channel_order", "layout", "image_size"),
            "the command line",
        ),
        reference_error=1e-6,
        details={"opset": "17"},
        notes=("a note with <em>markup</em>",),
    )


def _images() -> ImagesReport:
    return ImagesReport(
        directory="images",
        per_class=8,
        counts={str(k): 8 for k in range(10)},
        total=80,
        pool=320,
        accuracy=0.9125,
        resized=0,
        mapping="names",
        sha256="6f07f9316a53ecff7a539c6b7209e7a8c6639f381f0244b62476ad30b574d8aa",
        warnings=(),
    )


def _environment() -> dict[str, Any]:
    return {
        "modelaudit": VERSION,
        "torch": "2.9.0",
        "device": "cpu",
        "seed": 0,
        "created": "2026-01-02T03:04:05+00:00",
        "isolation": {"network": "none"},
    }
