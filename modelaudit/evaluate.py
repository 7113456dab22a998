"""Scan a labelled collection; resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelaudit import __version__
from modelaudit.errors import ManifestError, ModelAuditError, UsageError
from modelaudit.evaluation import Evaluation, Outcome, evaluation_text, outcome_of
from modelaudit.isolation.limits import Limits
from modelaudit.loaders import sha256_of
from modelaudit.manifest import ManifestModel, read_manifest
from modelaudit.model_config import read_model_config
from modelaudit.options import Preset, ScanOptions
from modelaudit.report import Report
from modelaudit.run import run_scan, scan_in_worker
from modelaudit.scan import build_detectors

__all__ = ["EvaluateOptions", "evaluate", "evaluation_text"]

#: Called with the number of finished models, the number of all, and the last one's name.
FleetProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate and how; the same names as in :class:`modelaudit.scan.ScanOptions`.

    Attributes:
        manifest: JSON file; see :mod:`modelaudit.manifest`.
        jobs: scans at the same time, each in a process of its own with its share of the cores.
        limits: of each process, but the memory is that of all together; ``None`` runs without
            isolation, a single job in this process.
        output: JSON report, rewritten after every model; finished models in it are kept.
    """

    manifest: Path
    detectors: tuple[str, ...] = ()
    preset: Preset = "default"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    images_per_class: int = 8
    alpha: float = 0.05
    accuracy_floor: float = 0.5
    device: str = "auto"
    seed: int = 0
    jobs: int = 1
    output: Path | None = None
    limits: Limits | None = field(default_factory=Limits)


def evaluate(options: EvaluateOptions, progress: FleetProgress | None = None) -> Evaluation:
    """Scan every model of the manifest.

    A model that cannot be scanned is recorded with its error; the others go on.

    Raises:
        ManifestError: the manifest or the report to resume from is malformed.
        UsageError: unknown detectors or settings.
    """
    build_detectors(options.detectors, options.settings, options.preset)
    models = read_manifest(options.manifest)
    scans = {model.name: _scan_options(model, options) for model in models}
    keys = {name: _fingerprint(scan_options) for name, scan_options in scans.items()}
    done = _finished(options.output, keys)
    show = progress or (lambda done, total, name: None)
    show(len(done), len(models), "")
    todo = [model for model in models if model.name not in done]
    for name, outcome in _run(todo, scans, keys, options):
        done[name] = outcome
        show(len(done), len(models), name)
        _write(_collect(models, done, options), options.output)
    evaluation = _collect(models, done, options)
    _write(evaluation, options.output)
    return evaluation


def _run(
    models: Sequence[ManifestModel],
    scans: Mapping[str, ScanOptions],
    keys: Mapping[str, str],
    options: EvaluateOptions,
) -> Iterator[tuple[str, Outcome]]:
    """Outcomes as they come. A thread of this process waits for each scan's own process."""
    cancelled = threading.Event()
    scan = _scanner(options, cancelled)
    pool = ThreadPoolExecutor(options.jobs)
    try:
        futures = [
            pool.submit(_scan_one, scan, model, scans[model.name], keys[model.name])
            for model in models
        ]
        for future in as_completed(futures):
            yield future.result()
    finally:
        # Interrupted: what is queued must not run, and what runs must not be waited for.
        cancelled.set()
        pool.shutdown(cancel_futures=True)


def _scanner(
    options: EvaluateOptions, cancelled: threading.Event
) -> Callable[[ScanOptions], Report]:
    """How one model is scanned: in a worker with its share of the cores, or in this process."""
    if options.limits is None and options.jobs == 1:
        return lambda scan_options: run_scan(scan_options, None)
    threads = max(1, (os.cpu_count() or 1) // options.jobs) if options.jobs > 1 else None
    limits = options.limits
    if limits is not None:
        limits = replace(limits, memory=max(1, limits.memory // options.jobs))
    return lambda scan_options: scan_in_worker(
        scan_options, limits, threads=threads, cancelled=cancelled
    )


def _scan_one(
    scan: Callable[[ScanOptions], Report], model: ManifestModel, options: ScanOptions, key: str
) -> tuple[str, Outcome]:
    """Scan one model; an error of any kind becomes part of its outcome."""
    try:
        return model.name, outcome_of(model, key, scan(options))
    except ModelAuditError as error:
        return model.name, outcome_of(model, key, error=str(error))
    except Exception as error:  # one broken model must not lose the others' results
        reason = f"internal error: {type(error).__name__}: {error}"
        return model.name, outcome_of(model, key, error=reason)


def _scan_options(model: ManifestModel, options: EvaluateOptions) -> ScanOptions:
    return ScanOptions(
        model=model.file,
        clean_dir=model.clean_dir,
        labels=model.labels,
        arch=model.arch,
        num_classes=model.num_classes,
        preprocessing=model.preprocessing,
        images_per_class=options.images_per_class,
        detectors=options.detectors,
        preset=options.preset,
        settings=options.settings,
        alpha=options.alpha,
        accuracy_floor=options.accuracy_floor,
        device=options.device,
        seed=options.seed,
    )


def _fingerprint(options: ScanOptions) -> str:
    """Changes with the model file, the options and the version, so that a resume is safe."""
    try:
        content = f"{sha256_of(options.model)} {read_model_config(options.model)!r}"
    except (ModelAuditError, OSError):
        content = "unreadable"
    text = f"{__version__} {content} {options!r}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _finished(output: Path | None, keys: Mapping[str, str]) -> dict[str, Outcome]:
    """Outcomes of an earlier run with the same inputs; failures are tried again."""
    if output is None or not output.exists():
        return {}
    try:
        entries: list[dict[str, Any]] = json.loads(output.read_text("utf-8"))["models"]
        outcomes = [Outcome.from_dict(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{output} exists but is not an evaluation report to resume from ({error}). "
            "Move it away or give another --output."
        ) from error
    return {o.name: o for o in outcomes if o.error is None and keys.get(o.name) == o.key}


def _collect(
    models: Sequence[ManifestModel], done: Mapping[str, Outcome], options: EvaluateOptions
) -> Evaluation:
    ordered = tuple(done[model.name] for model in models if model.name in done)
    settings = {
        "manifest": str(options.manifest),
        "images_per_class": options.images_per_class,
        "detectors": list(build_detectors(options.detectors, options.settings, options.preset)),
        "settings": {name: dict(values) for name, values in options.settings.items()},
        "alpha": options.alpha,
        "seed": options.seed,
        "modelaudit": __version__,
    }
    return Evaluation(ordered, settings)


def _write(evaluation: Evaluation, output: Path | None) -> None:
    """Replace the report in one step, so that an interruption leaves a whole one."""
    if output is None:
        return
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    try:
        text = json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(output)
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}.") from error
