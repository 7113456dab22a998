"""A fixed evaluation, made without scans, with names that a hostile author might choose."""

from __future__ import annotations

from typing import Any

from modelaudit.fleet.evaluation import DetectorOutcome, Evaluation, Outcome
from modelaudit.fleet.evaluation_examinations import ExaminationOutcome

HOSTILE = "<script>alert(1)</script> | [x](http://example.com)"


def outcome(
    name: str,
    attack: str | None,
    p: float | None,
    right: bool,
    signs: dict[str, dict[str, bool]] | None = None,
    error: str | None = None,
) -> Outcome:
    """A model with one detector.

    Args:
        attack: ``None`` for a clean model.
        signs: examination -> its signs; without any it was skipped.
    """
    refused = p is not None and p < 0.05
    examinations = {
        one: ExaminationOutcome("done" if given else "skipped", "", "", given)
        for one, given in (signs or {}).items()
    }
    manifest: dict[str, Any] = {"targets": [3]} if attack else {}
    return Outcome(
        name=name,
        key="k",
        label="backdoored" if attack else "clean",
        attack=attack or "clean",
        verdict=None if error else "backdoored" if refused else "no-backdoor-found",
        targets=(3,) if refused else (),
        right=right,
        p=p,
        detectors={} if error else {"l-red-sparse": DetectorOutcome(p, None, p, 3, right)},
        image_passes=100.0,
        seconds=1.0,
        error=error,
        manifest=manifest,
        examinations=examinations,
    )


def evaluation() -> Evaluation:
    """Three backdoored models, of which one is missed; two clean ones, one refused; a failure."""
    sees = {"strip": {"strip, inputs": True}, "spectral-signatures": {}}
    misses = {"strip": {"strip, inputs": False}, "spectral-signatures": {}}
    skipped: dict[str, dict[str, bool]] = {"strip": {}, "spectral-signatures": {}}
    return Evaluation(
        (
            outcome("a", "badnets", 0.001, True, sees),
            outcome("b", "badnets", 0.3, False, misses),
            outcome("c", HOSTILE, 0.01, True, skipped),
            outcome("d", None, 0.2, True, misses),
            outcome(HOSTILE, None, 0.04, False, skipped),
            outcome("f", "badnets", None, False, error="not a model: <b>x</b>"),
        ),
        {"alpha": 0.05, "manifest": "m.json", "modelaudit": "9.8.7", "examine": ["strip"]},
    )
