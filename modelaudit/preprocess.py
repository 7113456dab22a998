"""Find out how a model wants its pixels: try a short list and keep what classifies best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from modelaudit.classifier import Classifier, OutputKind, recognise_outputs
from modelaudit.errors import DeviceError, ModelFileError, is_out_of_memory
from modelaudit.images import CleanImages
from modelaudit.memory import BatchSize
from modelaudit.preprocess_options import PreprocessOptions
from modelaudit.preprocess_table import candidates, narrowed, preprocessing_names
from modelaudit.preprocessing import Preprocessing

__all__ = [
    "CandidateResult",
    "PreprocessChoice",
    "PreprocessOptions",
    "candidates",
    "choose_preprocessing",
    "narrowed",
    "preprocessing_names",
]

# Enough to tell candidates apart; ImageNet-sized pools would take long on a CPU.
_MOST_IMAGES = 512
_BATCH = 64


@dataclass(frozen=True)
class CandidateResult:
    """One preprocessing that was tried.

    Attributes:
        preprocessing: what was tried.
        accuracy: share of the images classified correctly, 0 to 1; ``None`` if the call failed.
        error: why the call failed, in one line.
    """

    preprocessing: Preprocessing
    accuracy: float | None
    error: str | None = None

    @property
    def name(self) -> str:
        return self.preprocessing.name


@dataclass(frozen=True)
class PreprocessChoice:
    """The preprocessing that fits best and everything that was tried.

    Attributes:
        preprocessing: the chosen one.
        outputs: what the model returns with it.
        num_classes: number of outputs K.
        accuracy: of the chosen one, on ``images`` images.
        images: how many images each candidate was measured on.
        table: all candidates in the order of simplicity; behind a stated preprocessing that
            recognises too little, the usual ones.
    """

    preprocessing: Preprocessing
    outputs: OutputKind
    num_classes: int
    accuracy: float
    images: int
    table: tuple[CandidateResult, ...]


def choose_preprocessing(
    module: nn.Module | Callable[[Tensor], Tensor],
    pool: CleanImages,
    options: Sequence[Preprocessing],
    device: torch.device | str = "cpu",
    num_classes: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> PreprocessChoice:
    """Measure the clean accuracy of every candidate and take the best.

    A candidate has to beat a simpler one by more than one image; otherwise the simpler one is
    taken, because a single image decides nothing.

    Args:
        module: takes the preprocessed batch, returns raw outputs ``[B, K]``.
        pool: labelled clean images; at most 512, spread evenly, are used.
        options: what to try, simplest first, from :func:`narrowed`; with a single one (stated in
            full) this only measures it and recognises the outputs.
        device: where to compute.
        num_classes: K if it is known; a candidate that gives another number has failed.
        progress: called after every batch with the share of the candidates that are done.

    Raises:
        ModelFileError: every candidate failed.
        DeviceError: the GPU did.
        RuntimeError, MemoryError: every candidate failed, some of them for lack of memory.
    """
    step = math.ceil(len(pool) / _MOST_IMAGES)
    pixels, labels = pool.pixels[::step], pool.labels[::step]
    tried: list[CandidateResult] = []
    outcomes: list[tuple[int, CandidateResult, Tensor]] = []
    lack: Exception | None = None
    for index, candidate in enumerate(options):
        alive = partial(progress or _silent, index / len(options))
        try:
            raw = _raw_outputs(module, candidate, pixels, device, num_classes, alive)
        # The module is the user's: a wrong layout can raise anything, and it is on record below.
        except Exception as error:
            if isinstance(error, DeviceError):
                raise
            tried.append(CandidateResult(candidate, None, _one_line(error)))
            if is_out_of_memory(error):
                # Without what the failed attempt has in memory.
                lack = lack or error.with_traceback(None)
            continue
        correct = int((raw.argmax(1) == labels).sum())
        result = CandidateResult(candidate, correct / len(labels))
        tried.append(result)
        outcomes.append((correct, result, raw))
    if not outcomes:
        if lack:
            raise lack  # it says nothing of the model
        raise ModelFileError(_nothing_worked(pool, tried))
    best = max(correct for correct, _, _ in outcomes)
    correct, chosen, raw = next(outcome for outcome in outcomes if outcome[0] >= best - 1)
    return PreprocessChoice(
        preprocessing=chosen.preprocessing,
        outputs=recognise_outputs(raw),
        num_classes=raw.shape[1],
        accuracy=correct / len(labels),
        images=len(labels),
        table=tuple(tried),
    )


@torch.no_grad()
def _raw_outputs(
    module: nn.Module | Callable[[Tensor], Tensor],
    preprocessing: Preprocessing,
    pixels: Tensor,
    device: torch.device | str,
    num_classes: int | None,
    alive: Callable[[], None],
) -> Tensor:
    """Raw outputs ``[n, K]`` on the CPU; raises ``ValueError`` if they have another shape."""
    channels, height, width = pixels.shape[1:]
    classifier = Classifier(module, 0, (channels, height, width), preprocessing, device=device)
    batch = BatchSize(_BATCH)

    def outputs() -> Iterator[Tensor]:
        for images in pixels.split(batch.images):
            raw = classifier(images.to(classifier.device))
            alive()
            if raw.ndim != 2 or len(raw) != len(images):
                raise ValueError(f"outputs [{len(images)}, K] expected, got {list(raw.shape)}")
            if num_classes is not None and raw.shape[1] != num_classes:
                raise ValueError(f"{num_classes} outputs expected, got {raw.shape[1]}")
            yield raw.cpu()

    return batch.within_memory(lambda: torch.cat(list(outputs())))


def _silent(share: float) -> None:
    """Progress that nobody watches."""


def _one_line(error: Exception, limit: int = 200) -> str:
    """The most telling line of an exception; TorchScript puts it last, PyTorch first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "xpected" in line or "must" in line]
    return (telling or lines or [type(error).__name__])[-1 if telling else 0][:limit]


def _nothing_worked(pool: CleanImages, tried: Sequence[CandidateResult]) -> str:
    shape = ", ".join(str(extent) for extent in pool.pixels.shape[1:])
    return (
        f"The model does not accept images of shape [{shape}] (channels, height, width) with any "
        f"of the {len(tried)} preprocessings tried. First problem: {tried[0].error}. Check the "
        "image size and the number of channels, and give --layout NHWC if the model takes "
        "channels last."
    )
