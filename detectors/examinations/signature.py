"""The signature of a found pattern in an input: does taking the pattern out change the decision?

Not from a paper. A triggered input is taken for the target because of its trigger; a pattern that a
search found works on the same shortcut of the model, so that the target loses its lead when the
pattern is taken out of the input. A natural image of the target class keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from detectors.finding import Finding
from detectors.margin import margins
from modelaudit.classifier import Classifier
from modelaudit.features import batch_size

# The opposite of a pattern takes it out if what is left is at most this share of the change:
# rounding, clipping, and the blur of sampling twice.
_MOST_LEFT = 0.5
# Else its place is covered: the pixels that it changes by this share of the largest change or
# more, if they are at most that share of the image.
_TOUCHED, _MOST_COVERED = 0.1, 0.25

#: Images ``[n, C, H, W]`` -> the same without the pattern.
Removal = Callable[[Tensor], Tensor]


@torch.no_grad()
def removal(finding: Finding, clean: Tensor) -> Removal | None:
    """How to take the pattern out of images; ``None`` where there is no way.

    By the opposite pattern ``-θ``, where that undoes it on clean images ``[n, C, H, W]``; else, if
    it changes few pixels, by putting the mean clean image in their place.
    """
    opposite = replace(finding, theta=-finding.theta).stamped
    stamped = finding.stamped(clean)
    change = (stamped - clean).abs()
    if (opposite(stamped) - clean).abs().mean() <= _MOST_LEFT * change.mean():
        return opposite
    strength = change.amax(1).mean(0)
    place = strength >= _TOUCHED * strength.max()
    if place.float().mean() > _MOST_COVERED:
        return None
    background = clean.mean(0)
    return lambda images: torch.where(place.to(images.device), background.to(images.device), images)


@torch.no_grad()
def margin_drop(
    classifier: Classifier, target: int, without: Removal, images: Tensor
) -> tuple[Tensor, Tensor]:
    """How much the target's lead falls without the pattern ``[n]``, and the classes ``[n]``.

    The lead is ``logit_t - max_{k≠t} logit_k``.
    """
    drops, classes = [], []
    for chunk in images.split(batch_size(images)):
        pixels = chunk.to(classifier.device)
        before, after = classifier(pixels), classifier(without(pixels))
        targets = torch.full((len(pixels),), target, device=pixels.device)
        drops.append((margins(before, targets) - margins(after, targets)).cpu())
        classes.append(before.argmax(1).cpu())
    return torch.cat(drops), torch.cat(classes)
