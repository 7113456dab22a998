"""Run the detectors, as far as the time allows; take over what ran before or elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from detectors import registry
from detectors.types import Detector, DetectorInput, DetectorResult, without_test
from modelaudit.classifier import Classifier
from modelaudit.conditions import Conditions, Stopped
from modelaudit.cut_short import CutShort
from modelaudit.errors import ModelAuditError
from modelaudit.lanes import Together, lanes_of, side_by_side
from modelaudit.options import ScanOptions
from modelaudit.preflight_model import FEWEST_CLASSES
from modelaudit.resume import detector_key, kept, restored, scan_key
from modelaudit.shifted import layers_visible
from modelaudit.stages import StageProgress
from modelaudit.suspect import Suspect


def run_detectors(
    detectors: Mapping[str, Detector],
    suspect: Suspect,
    options: ScanOptions,
    conditions: Conditions,
    progress: StageProgress,
) -> dict[str, DetectorResult]:
    """The results of the detectors that finished, by name, in the order given.

    Every detector has a generator of its own, seeded alike, and sees nothing of the others, so
    that its numbers are the same whichever runs before it or beside it, in this scan or in another.
    Those that are registered to run after others are the exception: they see what these found.

    They are started in an order that is fixed beforehand (:func:`detectors.registry.in_order`),
    until ``progress`` raises :class:`Stopped`. So which ones finish depends on how long they take
    and not on what they find, and Holm's procedure over those that finished holds its error rate.
    (As far as the two have nothing to do with each other: a search takes as long as its slowest
    classes do, and the attacker's is a quick one.)
    """
    own = all(name in registry.REGISTRY for name in detectors)
    lanes = lanes_of(suspect.classifier, len(detectors), common_parameters=own)
    threads = torch.get_num_threads() // len(lanes)
    store = _Store(detectors, suspect, options, conditions, threads)
    done = store.found()
    waiting = [name for name in registry.in_order(detectors) if name not in done]
    if not waiting:
        return {name: done[name] for name in detectors}
    together = Together({name: registry.cost(name) for name in waiting}, progress)

    def awaited(name: str) -> set[str]:
        return {one for one in registry.runs_after(name) if one in detectors}

    def work(name: str, lane: Classifier) -> DetectorResult:
        before = {one: done[one] for one in awaited(name)}
        return _run(name, detectors[name], lane, suspect, options.seed, together, before)

    def ready(name: str) -> bool:
        return awaited(name) <= done.keys()

    try:
        with layers_visible():  # a switch for all threads: what one runs must not depend on another
            for name, result in side_by_side(waiting, ready, work, lanes, together.end):
                done[name] = result
                store.keep(name, result)
    except Stopped:
        pass  # whoever raised it knows why
    finally:
        for lane in lanes[1:]:
            suspect.classifier.count(lane.image_passes)
    return {name: done[name] for name in detectors if name in done}


def with_left_out(
    done: Mapping[str, DetectorResult], detectors: Collection[str], cut_short: CutShort | None
) -> tuple[DetectorResult, ...]:
    """One result per detector: of those that did not finish, that they did not."""
    why = cut_short.reason if cut_short else ""
    return tuple(done[name] if name in done else without_test(name, why) for name in detectors)


def reasons_to_doubt(finished: Collection[str], cut_short: CutShort | None) -> tuple[str, ...]:
    """Why nothing found does not mean ``no-backdoor-found`` after a scan that was cut short.

    A time budget is a choice, and ``--fast`` is another one: where these detectors finished, the
    verdict is theirs. An interruption is none.
    """
    if cut_short is None or not cut_short.left_out:
        return ()
    missing = [name for name in registry.FAST if name not in finished]
    if cut_short.cause == "interrupted":
        names = ", ".join(one.detector for one in cut_short.left_out)
        return (f"the scan was interrupted before {names} had finished",)
    if missing:
        return (f"the time budget was used up before {', '.join(missing)} had finished",)
    return ()


def doubts_of_few_classes(num_classes: int) -> tuple[str, ...]:
    """Why nothing found does not mean ``no-backdoor-found`` in a model with two or three classes.

    What one target is compared with is then a class or two, so that many attacks are missed.
    """
    if num_classes >= FEWEST_CLASSES:
        return ()
    return (
        f"with {num_classes} classes only a target that is far easier to reach than the others "
        "stands out, and none does: other attacks cannot be told from how such classes differ",
    )


class _Store:
    """Results that come from another process or go there, by the names of their detectors."""

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        suspect: Suspect,
        options: ScanOptions,
        conditions: Conditions,
        threads: int,
    ) -> None:
        self._suspect = suspect
        self._known = {one.key: one for one in conditions.finished}
        self._keep = conditions.keep
        self._keys: dict[str, str] = {}
        if conditions.keep or conditions.finished:
            about = scan_key(options, suspect, threads)
            keys = {}
            for name, one in detectors.items():
                before = [detectors[n] for n in registry.runs_after(name) if n in detectors]
                keys[name] = detector_key(name, one, about, before)
            self._keys = {name: key for name, key in keys.items() if key}

    def found(self) -> dict[str, DetectorResult]:
        """What was finished before or elsewhere; its cost counts as this scan's."""
        found = {}
        for name, key in self._keys.items():
            if one := self._known.get(key):
                try:
                    found[name] = restored(one)
                except (KeyError, ValueError, TypeError, RuntimeError):
                    continue  # of the right type, and of no sense: that detector runs again
                self._suspect.classifier.count(one.report.image_passes)
                if self._keep:
                    self._keep(one)
        return found

    def keep(self, name: str, result: DetectorResult) -> None:
        if self._keep and name in self._keys:
            one = kept(self._keys[name], result, self._suspect)
            if one is not None:
                self._keep(one)


def _run(
    name: str,
    detector: Detector,
    classifier: Classifier,
    suspect: Suspect,
    seed: int,
    progress: Together,
    before: Mapping[str, DetectorResult],
) -> DetectorResult:
    progress(name, 0.0)
    try:
        result = detector(
            DetectorInput(
                classifier,
                suspect.chosen.pixels,
                suspect.chosen.labels,
                torch.Generator().manual_seed(seed),
                lambda share: progress(name, share),
                before,
            )
        )
    except ModelAuditError as error:
        error.stage = error.stage or name
        raise
    progress.finished(name)
    return result
