"""Keep what a detector found for a scan that goes on later, and take it up again."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from detectors import registry
from detectors.calibration import NullTable
from detectors.embeddings import EMBEDDINGS
from detectors.order_statistic import FittedNull, OrderStatisticTest
from detectors.types import ClassStatistic, Detector, DetectorResult
from modelaudit.finished import FinishedDetector, KeptNull, KeptPattern, KeptTensor
from modelaudit.loaders.fingerprint import digest
from modelaudit.options import ScanOptions
from modelaudit.report import ClassReport
from modelaudit.reporting import class_names, detector_report, environment_of
from modelaudit.scan_files import model_files
from modelaudit.suspect import Suspect

_DTYPES: Mapping[str, str] = MappingProxyType({"float32": "<f4", "bool": "?"})


def detector_key(
    name: str, detector: Detector, about: str, before: Sequence[Detector] = ()
) -> str | None:
    """What a built-in detector's numbers depend on, as a hex SHA-256.

    ``None`` for a detector of another package, whose version is not known here.

    Args:
        about: the model and the images; see :func:`scan_key`.
        before: the detectors whose results it is given.
    """
    if name not in registry.REGISTRY:
        return None
    described = " ".join(map(repr, [detector, *before]))
    return hashlib.sha256(f"{about} {described}".encode()).hexdigest()


def scan_key(options: ScanOptions, suspect: Suspect, threads: int) -> str:
    """What all detectors' numbers depend on, as a hex SHA-256.

    The model's files and what is said about them, the pixels and labels of the images, their
    preprocessing, the seed, the device, the threads of each, the versions of the program and of its
    libraries. Of code that ``--arch package.module:factory`` runs, only the classes that it
    predicts are known.

    Args:
        threads: of each detector.
    """
    classifier = suspect.classifier
    environment = environment_of(classifier.device, options.seed)
    environment["threads"] = threads
    described = [
        digest((file.name, file) for file in model_files(options.model)),
        options.arch,
        options.num_classes,
        repr(classifier.preprocessing),
        classifier.outputs,
        classifier.without_softmax,
        {name: value for name, value in environment.items() if name != "created"},
    ]
    total = hashlib.sha256(json.dumps(described).encode())
    for tensor in (suspect.chosen.pixels, suspect.chosen.labels, suspect.predictions):
        total.update(str(tuple(tensor.shape)).encode())
        total.update(tensor.cpu().contiguous().numpy().data)
    return total.hexdigest()


def kept(key: str, result: DetectorResult, suspect: Suspect) -> FinishedDetector | None:
    """All that the rest of a scan needs of a result; ``None`` where that has no plain form.

    Of the patterns only those of the targets that stand out are ever looked at, and kept: those of
    1,000 classes of 3x224x224 would take 600 MB.
    """
    test = getattr(result.critical, "__self__", None)
    stamper = getattr(result.stamp, "__self__", None)
    if result.critical and not isinstance(test, OrderStatisticTest):
        return None
    if result.stamp and type(stamper) not in map(type, EMBEDDINGS.values()):
        return None
    patterns: tuple[KeptPattern, ...] = ()
    if stamper is not None:
        state = tuple(map(_to_plain, stamper.state()))
        patterns = tuple(
            KeptPattern(entry, _to_plain(result.patterns[entry]), stamper.name, state)
            for one in result.each
            if (entry := one.suspicious_entry) is not None and entry in result.patterns
        )
    return FinishedDetector(
        key=key,
        report=detector_report(result, None, class_names(suspect)),
        applicable=result.applicable,
        searched=None if result.searched is None else _to_plain(result.searched),
        patterns=patterns,
        null=_null(test),
    )


def restored(finished: FinishedDetector) -> DetectorResult:
    """The result that :func:`kept` was given, with the patterns that were kept."""
    report, embedding = finished.report, None
    if finished.patterns:  # all are of one embedding
        pattern = finished.patterns[0]
        embedding = type(EMBEDDINGS[pattern.embedding])(*map(_to_tensor, pattern.state))
    return DetectorResult(
        detector=report.detector,
        p_plugin=report.p_plugin,
        log_p_plugin=report.log_p_plugin,
        p_calibrated=report.p_calibrated,
        target=report.target.index if report.target else None,
        others=tuple(one.index for one in report.others),
        sources=_by_class(report.sources),
        classes=tuple(map(_class, report.classes)),
        unit=report.unit,
        patterns={one.entry: _to_tensor(one.theta) for one in finished.patterns},
        image_passes=report.image_passes,
        seconds=report.seconds,
        null=report.null,
        settings=report.settings,
        notes=report.notes,
        reason=report.reason,
        applicable=finished.applicable,
        shift=report.shift,
        stamp=embedding.apply if embedding else None,
        critical=_test(finished.null).critical if finished.null else None,
        searched=None if finished.searched is None else _to_tensor(finished.searched),
    )


def _null(test: OrderStatisticTest | None) -> KeptNull | None:
    null = test.alone if test else None
    if null is None:
        return None
    quantiles = tuple(null.table.quantiles.tolist())
    return KeptNull(
        null.shape, null.scale, null.count, quantiles, null.table.strays, null.table.share
    )


def _test(null: KeptNull) -> OrderStatisticTest:
    table = NullTable(np.array(null.quantiles), null.strays, null.share)
    alone = FittedNull(null.shape, null.scale, null.count, rank=1, table=table)
    return OrderStatisticTest(None, nulls=(alone,))


def _class(one: ClassReport) -> ClassStatistic:
    return ClassStatistic(
        one.target, one.statistic, one.size, one.flip_rate, _by_class(one.weights), one.steps
    )


def _by_class(weights: Mapping[str, float]) -> dict[int, float]:
    return {int(source): weight for source, weight in weights.items()}


def _to_plain(tensor: Tensor) -> KeptTensor:
    values = tensor.cpu().numpy()
    dtype: Literal["float32", "bool"] = "bool" if values.dtype == np.bool_ else "float32"
    data = base64.b64encode(values.astype(_DTYPES[dtype]).tobytes()).decode()
    return KeptTensor(dtype, tuple(tensor.shape), data)


def _to_tensor(kept: KeptTensor) -> Tensor:
    values = np.frombuffer(kept.bytes, _DTYPES[kept.dtype]).reshape(kept.shape)
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
