"""STRIP: does an input keep its class when other images are laid over it?

Gao, Xu, Wang, Chen, Ranasinghe, Nepal, "STRIP: A Defence Against Trojan Attacks on Deep Neural
Networks" (ACSAC 2019). A trigger decides the class whatever else is in the image, so predictions
for superpositions of a triggered input with clean images have a low entropy over classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy import special
from torch import Tensor

from detectors.auc import auc
from detectors.examinations.types import ExaminationInput, Observation, Skipped, rounded
from modelaudit.classifier import Classifier
from modelaudit.features import batch_size

_LEAST_CLEAN = 10


@torch.no_grad()
def superposition_entropy(
    classifier: Classifier,
    inputs: Tensor,
    overlays: Tensor,
    count: int,
    generator: torch.Generator,
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Mean entropy over classes, in bits, of ``count`` superpositions of each input ``[n]``.

    Eqs. 1-3 of the paper: ``H = -1/N Σ_n Σ_k p_k log2 p_k`` over N superpositions. They are the sum
    of the input and a clean image, clipped to [0, 1], as in the authors' program. Every input gets
    ``count`` different overlays at random, or all where there are no more.

    Args:
        inputs: ``[n, C, H, W]`` in [0, 1].
        overlays: clean images ``[m, C, H, W]`` in [0, 1].
    """
    count = min(count, len(overlays))
    overlays = overlays.to(classifier.device)
    batch = batch_size(inputs)
    at_once = max(1, batch // count)
    entropies = []
    for start in range(0, len(inputs), at_once):
        chunk = inputs[start : start + at_once].to(classifier.device)
        order = torch.rand(len(chunk), len(overlays), generator=generator).argsort(1)
        chosen = overlays[order[:, :count].to(classifier.device)]
        mixed = (chunk[:, None] + chosen).clamp(0, 1).flatten(0, 1)
        p = torch.cat([classifier(part).softmax(1) for part in mixed.split(batch)])
        bits = torch.special.entr(p).sum(1) / math.log(2)  # 0 log 0 is 0
        entropies.append(bits.view(len(chunk), count).mean(1).cpu())
        progress((start + len(chunk)) / len(inputs))
    return torch.cat(entropies) if entropies else torch.empty(0)


def entropy_threshold(clean: Tensor, false_rejection: float) -> float:
    """Entropy in bits below which an input is taken for triggered.

    The quantile of a normal distribution with the clean images' mean and deviation (section 4.3 of
    the paper). Where they are so skewed that it is not positive, no input could be below it; then
    it is the quantile of the clean entropies ``[n]`` themselves.
    """
    mean, deviation = float(clean.mean()), float(clean.std())
    normal = float(mean + deviation * special.ndtri(false_rejection))
    return normal if normal > 0 else float(clean.quantile(false_rejection))


_NAMES = {"stamped": "clean images with the pattern", "suspects": "suspect inputs"}
_SENTENCE = "{below} of {images} {what} are below the threshold (AUC against clean: {auc:.2f})."


@dataclass(frozen=True)
class Strip:
    """STRIP on suspect inputs, and on clean images with the pattern found.

    Attributes:
        superpositions: N per input; the paper's 100.
        false_rejection: share of clean inputs below the threshold; the paper's 1 %.
        most: clean images, and stamped ones, that are judged at most.
    """

    superpositions: int = 100
    false_rejection: float = 0.01
    most: int = 200

    name: ClassVar[str] = "strip"
    cannot_see: ClassVar[str] = (
        "triggers that other images cover or disturb: warps, faint patterns over the whole image "
        "and those made for each input; a pattern found by a search is the smallest that works and "
        "is covered sooner than the attacker's own"
    )

    def cost(self, data: ExaminationInput) -> float:
        """As in :class:`Examiner`."""
        suspects = 0 if data.suspects is None else len(data.suspects)
        judged = suspects + (2 if data.finding else 1) * data.clean_count(self.most)
        return judged * min(self.superpositions, len(data.clean)) / 2

    def look(self, data: ExaminationInput) -> Observation:
        """Judge what there is to judge."""
        judged = self._inputs(data)
        if len(data.clean) < _LEAST_CLEAN:
            raise Skipped(f"it needs at least {_LEAST_CLEAN} clean images for its threshold")
        clean = self._entropy(data, data.some_clean(self.most).pixels)
        threshold = entropy_threshold(clean, self.false_rejection)
        numbers: dict[str, Any] = {
            "superpositions": min(self.superpositions, len(data.clean)),
            "threshold": round(threshold, 4),
            "clean": _described(clean, clean, threshold),
        }
        for name, inputs in judged.items():
            entropy = self._entropy(data, inputs)
            numbers[name] = _described(entropy, clean, threshold)
            if name == "suspects":
                numbers[name]["entropy"] = rounded(entropy)
        parts = [_SENTENCE.format(what=_NAMES[name], **numbers[name]) for name in judged]
        return Observation(" ".join(parts), numbers)

    def _inputs(self, data: ExaminationInput) -> dict[str, Tensor]:
        """Suspects, and clean images that the pattern makes the model take for the target.

        Raises:
            Skipped: there are neither.
        """
        judged = {}
        if data.finding is not None:
            stamped = data.finding.stamped(data.victims(self.most).pixels)
            judged["stamped"] = stamped[data.classifier.predict(stamped) == data.finding.target]
        if data.suspects is not None:
            judged["suspects"] = data.suspects
        judged = {name: images for name, images in judged.items() if len(images)}
        if not judged:
            flips = "a pattern that flips clean images" if data.finding else "a pattern"
            raise Skipped(
                f"it needs inputs to judge, and there is neither {flips} nor --suspect-dir"
            )
        return judged

    def _entropy(self, data: ExaminationInput, inputs: Tensor) -> Tensor:
        return superposition_entropy(
            data.classifier,
            inputs,
            data.clean.pixels,
            self.superpositions,
            data.generator,
            data.progress,
        )


def _described(entropy: Tensor, clean: Tensor, threshold: float) -> dict[str, Any]:
    """Numbers of some inputs; ``auc``: how often one has less entropy than a clean image."""
    return {
        "images": len(entropy),
        "mean": round(float(entropy.mean()), 4),
        "below": int((entropy < threshold).sum()),
        "auc": round(auc(clean, entropy), 4),
    }
